// ncnn: model.ncnn.param, with model.ncnn.bin beside it.

#include <net.h>

#include "program.hpp"

namespace {

class Ncnn {
 public:
  Ncnn(const std::string& model, const nanodet::Contract& contract, int threads)
      : contract_(contract) {
    const std::string suffix = "param";
    if (model.size() < suffix.size() || model.substr(model.size() - suffix.size()) != suffix)
      throw nanodet::Error(model + "; allowed: a .param file, with its .bin beside it");
    const std::string weights = model.substr(0, model.size() - suffix.size()) + "bin";
    net_.opt.num_threads = threads;
    if (net_.load_param(model.c_str()) || net_.load_model(weights.c_str()))
      throw nanodet::Error("ncnn cannot load " + model + " and " + weights);
  }

  std::vector<nanodet::Values> run(const std::vector<float>& input) {
    ncnn::Extractor extractor = net_.create_extractor();
    // No copy: the values outlive the extractor. Channels of ncnn begin at multiples of 16 bytes.
    void* const memory = const_cast<float*>(input.data());
    ncnn::Mat in(contract_.width, contract_.height, 3, memory);
    if (in.cstep * 3 != input.size())
      in = ncnn::Mat(contract_.width * contract_.height, 3, memory)
               .reshape(contract_.width, contract_.height, 3);
    extractor.input(contract_.input_name.c_str(), in);
    outputs_.clear();
    std::vector<nanodet::Values> values;
    for (const std::string& name : contract_.outputs) {
      ncnn::Mat out;
      if (extractor.extract(name.c_str(), out)) throw nanodet::Error("ncnn has no output " + name);
      outputs_.push_back(out.reshape(out.w * out.h * out.c));  // copies where channels have gaps
      values.push_back({outputs_.back(), std::size_t(outputs_.back().w)});
    }
    return values;
  }

 private:
  const nanodet::Contract contract_;
  ncnn::Net net_;
  std::vector<ncnn::Mat> outputs_;
};

}  // namespace

int main(int count, char** arguments) { return nanodet::main_of<Ncnn>(count, arguments); }
