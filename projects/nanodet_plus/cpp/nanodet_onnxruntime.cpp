// ONNX Runtime: model.onnx.

#include <onnxruntime_cxx_api.h>

#include "program.hpp"

namespace {

class OnnxRuntime {
 public:
  OnnxRuntime(const std::string& model, const nanodet::Contract& contract, int threads)
      : contract_(contract) {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(threads);
    session_ = Ort::Session(environment_, model.c_str(), options);
    shape_ = {1, 3, contract.height, contract.width};
    for (const std::string& name : contract_.outputs) names_.push_back(name.c_str());
  }

  std::vector<nanodet::Values> run(const std::vector<float>& input) {
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    // Only read, though the type does not say so.
    const Ort::Value value =
        Ort::Value::CreateTensor<float>(memory, const_cast<float*>(input.data()), input.size(),
                                        shape_.data(), shape_.size());
    const char* const name = contract_.input_name.c_str();
    outputs_ = session_.Run(Ort::RunOptions(), &name, &value, 1, names_.data(), names_.size());
    std::vector<nanodet::Values> values;
    for (const Ort::Value& output : outputs_)
      values.push_back({output.GetTensorData<float>(),
                        output.GetTensorTypeAndShapeInfo().GetElementCount()});
    return values;
  }

 private:
  const nanodet::Contract contract_;
  Ort::Env environment_{ORT_LOGGING_LEVEL_ERROR, "nanodet"};
  Ort::Session session_{nullptr};
  std::vector<int64_t> shape_;
  std::vector<const char*> names_;
  std::vector<Ort::Value> outputs_;
};

}  // namespace

int main(int count, char** arguments) { return nanodet::main_of<OnnxRuntime>(count, arguments); }
