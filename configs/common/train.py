"""Everything about a run that is neither model, data nor optimiser."""

import torch

train = dict(
    output_dir="./output",  # where logs, checkpoints and results are written
    # What the model starts from: a name of the zoo, a path, or a URL that may end in #sha256=…;
    # random weights if empty.
    init_checkpoint="",
    # The device that the model runs on: a GPU where there is one.
    device="cuda" if torch.cuda.is_available() else "cpu",
    seed=-1,  # negative: another one every time
    deterministic=False,  # the same bits from the same seed, at some speed
    # The batch that learning rate and iterations are written for: they are fitted to another
    # dataloader.train.total_batch_size. None leaves them as they are.
    reference_batch_size=None,
    auto_batch_memory=0.85,  # share of the GPU's that dataloader.train.total_batch_size=auto fills
    cudnn_benchmark=True,  # every training batch has the same shape
    channels_last=True,  # memory layout of the convolutions; 1.3 times faster on CPUs
    compile=dict(
        enabled=False,  # torch.compile of the model's parts; worth its minutes on GPUs
        settings=dict(),  # arguments of torch.compile
    ),
    max_iter=369_600,  # iterations; 300 epochs of 1232 iterations, COCO at batch 96
    # In place of max_iter: wall clock of the whole training, evaluations included, to which steps
    # and schedule are fitted.
    minutes=None,
    epochs=None,  # in place of max_iter: passes over the training images
    tiles=None,  # large pictures are cut into slices: see dataloader.train.tiles
    eval_period=12_320,  # iterations between evaluations; 10 epochs
    log_period=50,  # iterations between lines of the log
    validation_loss=False,  # the training's losses on the test set, with each evaluation
    early_stop_patience=None,  # evaluations without a better AP after which the training ends
    checkpointer=dict(
        period=6_160,  # iterations between checkpoints
        max_to_keep=3,  # how many of these are kept, the newest
    ),
    amp=dict(
        enabled=False,  # mixed precision
        # Or bfloat16, which needs no scaled loss and does not overflow; GPUs since Ampere, and
        # CPUs, have it.
        dtype="float16",
    ),
    ema=dict(
        enabled=True,  # evaluate and save an average of the weights over the training's steps
        # Arguments of nanodet_d2.engine.ModelEMA.
        settings=dict(decay=0.9998, warmup=2000.0, start_share=0.0, window=None),
    ),
    # Of optimizer.lr, where the classes are those of init_checkpoint, which has them to forget.
    same_classes_lr_factor=1.0,
    evaluate_raw=False,  # the raw weights as well as the averaged ones, as raw_bbox
    sync_norm=False,  # batch norms over the images of all ranks; for few images per rank
    # Arguments of torch's DistributedDataParallel, for trainings on several GPUs.
    ddp=dict(
        broadcast_buffers=False,  # send rank 0's buffers to all at each step
        # Needed where the auxiliary branch leaves the step, after model.aux_detach_iter.
        find_unused_parameters=True,
        # MB of gradients that are sent together, None for torch's 25; smaller ones leave earlier
        # in the backward pass.
        bucket_cap_mb=None,
    ),
)
