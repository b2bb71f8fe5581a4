"""Everything about a run that is neither model, data nor optimiser."""

import torch

train = dict(
    output_dir="./output",
    init_checkpoint="",
    device="cuda" if torch.cuda.is_available() else "cpu",
    seed=-1,  # negative: another one every time
    deterministic=False,  # the same bits from the same seed, at some speed
    # The batch that learning rate and iterations are written for: they are fitted to another
    # dataloader.train.total_batch_size. None leaves them as they are.
    reference_batch_size=None,
    auto_batch_memory=0.85,  # share of the GPU's that dataloader.train.total_batch_size=auto fills
    cudnn_benchmark=True,  # every training batch has the same shape
    channels_last=True,  # memory layout of the convolutions; 1.3 times faster on CPUs
    # torch.compile of the model's parts; settings are its arguments. Worth its minutes on GPUs.
    compile=dict(enabled=False, settings=dict()),
    max_iter=369_600,  # 300 epochs of 1232 iterations, COCO at batch 96
    # In place of max_iter, one of: wall clock of the whole training, evaluations included, to which
    # steps and schedule are fitted; passes over the training images.
    minutes=None,
    epochs=None,
    tiles=None,  # large pictures are cut into slices: see dataloader.train.tiles
    eval_period=12_320,  # 10 epochs
    log_period=50,
    validation_loss=False,  # the training's losses on the test set, with each evaluation
    early_stop_patience=None,  # evaluations without a better AP after which the training ends
    checkpointer=dict(period=6_160, max_to_keep=3),
    # bfloat16 needs no scaled loss and does not overflow; GPUs since Ampere, and CPUs, have it.
    amp=dict(enabled=False, dtype="float16"),
    ema=dict(
        enabled=True, settings=dict(decay=0.9998, warmup=2000.0, start_share=0.0, window=None)
    ),
    # Of optimizer.lr, where the classes are those of init_checkpoint, which has them to forget.
    same_classes_lr_factor=1.0,
    evaluate_raw=False,  # the raw weights as well as the averaged ones, as raw_bbox
    sync_norm=False,  # batch norms over the images of all ranks; for few images per rank
    # The auxiliary branch may leave the step after model.aux_detach_iter.
    # bucket_cap_mb: of gradients that are sent together, None for torch's 25; smaller ones leave
    # earlier in the backward pass.
    ddp=dict(broadcast_buffers=False, find_unused_parameters=True, bucket_cap_mb=None),
)
