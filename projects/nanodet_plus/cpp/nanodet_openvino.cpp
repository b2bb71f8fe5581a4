// OpenVINO: model.xml, with model.bin beside it.

#include <openvino/openvino.hpp>

#include "program.hpp"

namespace {

class OpenVino {
 public:
  OpenVino(const std::string& model, const nanodet::Contract& contract, int threads)
      : contract_(contract), input_(ov::element::f32, shape_of(contract)) {
    ov::Core core;
    // float32 on processors, too, whose matrix units would otherwise compute in bfloat16.
    request_ = core.compile_model(core.read_model(model), "CPU",
                                  ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                                  ov::hint::inference_precision(ov::element::f32),
                                  ov::inference_num_threads(threads))
                   .create_infer_request();
    request_.set_input_tensor(input_);
  }

  std::vector<nanodet::Values> run(const std::vector<float>& input) {
    std::copy(input.begin(), input.end(), input_.data<float>());
    request_.infer();
    std::vector<nanodet::Values> values;
    for (std::size_t i = 0; i < contract_.outputs.size(); ++i) {
      const ov::Tensor output = request_.get_output_tensor(i);  // in the order of the file
      values.push_back({output.data<float>(), output.get_size()});
    }
    return values;
  }

 private:
  static ov::Shape shape_of(const nanodet::Contract& contract) {
    const std::size_t height = std::size_t(contract.height), width = std::size_t(contract.width);
    return contract.channels_last ? ov::Shape{1, height, width, 3} : ov::Shape{1, 3, height, width};
  }

  const nanodet::Contract contract_;
  ov::Tensor input_;
  ov::InferRequest request_;
};

}  // namespace

int main(int count, char** arguments) { return nanodet::main_of<OpenVino>(count, arguments); }
