// No engine: the outputs are read from raw float32 files, to test all that is around one. MODEL is
// a folder with 0.bin, 1.bin, … in the order of the contract's outputs.

#include "program.hpp"

namespace {

class Replay {
 public:
  Replay(const std::string& model, const nanodet::Contract& contract, int) {
    for (std::size_t i = 0; i < contract.outputs.size(); ++i) {
      const std::string bytes = nanodet::read_text(model + "/" + std::to_string(i) + ".bin");
      std::vector<float> output(bytes.size() / sizeof(float));
      std::copy_n(bytes.begin(), output.size() * sizeof(float),
                  reinterpret_cast<char*>(output.data()));
      outputs_.push_back(output);
    }
  }

  std::vector<nanodet::Values> run(const std::vector<float>&) const {
    std::vector<nanodet::Values> values;
    for (const std::vector<float>& output : outputs_)
      values.push_back({output.data(), output.size()});
    return values;
  }

 private:
  std::vector<std::vector<float>> outputs_;
};

}  // namespace

int main(int count, char** arguments) { return nanodet::main_of<Replay>(count, arguments); }
