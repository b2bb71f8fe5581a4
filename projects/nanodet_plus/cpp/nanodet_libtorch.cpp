// libtorch: model.torchscript. Such a file is a program, which is run: open only those you trust.

#include <ATen/Parallel.h>
#include <torch/script.h>

#include "program.hpp"

namespace {

class LibTorch {
 public:
  LibTorch(const std::string& model, const nanodet::Contract& contract, int threads)
      : contract_(contract) {
    at::set_num_threads(threads);
    module_ = torch::jit::load(model);
    module_.eval();
  }

  std::vector<nanodet::Values> run(const std::vector<float>& input) {
    const c10::InferenceMode no_gradients;
    const at::Tensor tensor = torch::from_blob(const_cast<float*>(input.data()),
                                               {1, 3, contract_.height, contract_.width});
    const c10::IValue output = module_.forward({tensor});
    outputs_.clear();
    if (output.isTensor())
      outputs_.push_back(output.toTensor().contiguous());
    else
      for (const c10::IValue& one : output.toTupleRef().elements())
        outputs_.push_back(one.toTensor().contiguous());
    std::vector<nanodet::Values> values;
    for (const at::Tensor& one : outputs_)
      values.push_back({one.data_ptr<float>(), std::size_t(one.numel())});
    return values;
  }

 private:
  const nanodet::Contract contract_;
  torch::jit::Module module_;
  std::vector<at::Tensor> outputs_;
};

}  // namespace

int main(int count, char** arguments) { return nanodet::main_of<LibTorch>(count, arguments); }
