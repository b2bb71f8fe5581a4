// What the programs have in common; each brings an Engine.

#pragma once

#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <thread>

#include "picture.hpp"

namespace nanodet {

// The arguments.
struct Request {
  std::string model, contract;
  std::vector<std::string> pictures;
  int threads = int(std::max(1u, std::thread::hardware_concurrency()));
  int repeat = 0;      // how often to time each picture
  std::string stages;  // folder to write the input and raw outputs to
};

inline const char* const kUsage =
    " MODEL CONTRACT PICTURE... [--threads N] [--stages FOLDER] [--repeat N]\n\n"
    "Finds objects and prints them as json: rows x0, y0, x1, y1, score, class of each picture, as\n"
    "`nanodet-d2 check KIT RESULT` reads them.\n\n"
    "  MODEL           of a kit\n"
    "  CONTRACT        contract.json of its kit\n"
    "  --threads N     of the engine (default: all)\n"
    "  --stages FOLDER write the network's input and outputs there, where the json belongs, too:\n"
    "                  ... --stages FOLDER > FOLDER/result.json\n"
    "  --repeat N      time the network alone and all from picture to boxes, N times in turns\n";

inline int number_of(const std::string& option, const std::string& value) {
  const bool digits = !value.empty() && value.size() < 7 &&
                      value.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || std::stoi(value) < 1) throw Error(option + " " + value + "; allowed: 1 or more");
  return std::stoi(value);
}

inline Request parse(const std::vector<std::string>& arguments) {
  Request request;
  std::vector<std::string> files;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = arguments[i];
    if (name.compare(0, 2, "--") != 0) {
      files.push_back(name);
      continue;
    }
    if (name != "--threads" && name != "--repeat" && name != "--stages")
      throw Error("unknown option " + name + "; allowed: --threads, --stages, --repeat");
    if (++i == arguments.size()) throw Error(name + " lacks its value");
    if (name == "--stages") request.stages = arguments[i];
    if (name == "--threads") request.threads = number_of(name, arguments[i]);
    if (name == "--repeat") request.repeat = number_of(name, arguments[i]);
  }
  if (files.size() < 3) throw Error("needed: MODEL CONTRACT PICTURE...");
  request.model = files[0];
  request.contract = files[1];
  request.pictures.assign(files.begin() + 2, files.end());
  return request;
}

inline std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    char escape[8];
    if (c == '"' || c == '\\')
      out += '\\', out += c;
    else if (static_cast<unsigned char>(c) < 0x20)
      std::snprintf(escape, sizeof escape, "\\u%04x", unsigned(c)), out += escape;
    else
      out += c;
  }
  return out + '"';
}

inline std::string base_name(const std::string& path) {
  const std::size_t slash = path.find_last_of("/\\");
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

inline std::string row_of(const Box& box) {
  if (!std::isfinite(box.score)) throw Error("the network gives scores that are not finite");
  char text[160];
  std::snprintf(text, sizeof text, "[%.9g, %.9g, %.9g, %.9g, %.9g, %d]", double(box.x0),
                double(box.y0), double(box.x1), double(box.y1), double(box.score), box.label);
  return text;
}

template <class T, class Text>
std::string joined(const std::vector<T>& items, Text text) {
  std::string out;
  for (const T& item : items) out += (out.empty() ? "" : ", ") + text(item);
  return out;
}

// Write values as raw float32; returns how the json names them.
inline std::string write_values(const std::string& folder, const std::string& name,
                                const Values& values) {
  std::ofstream file(folder + "/" + name, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data),
             std::streamsize(values.size * sizeof(float)));
  if (!file.flush()) throw Error(folder + "/" + name + " cannot be written");
  return "{\"file\": " + quoted(name) + ", \"shape\": [" +
         std::to_string(values.size) + "]}";
}

inline double median_ms(std::vector<double> seconds) {
  std::nth_element(seconds.begin(), seconds.begin() + std::ptrdiff_t(seconds.size() / 2),
                   seconds.end());
  return 1e3 * seconds[seconds.size() / 2];
}

inline double seconds_of(const std::function<void()>& work) {
  const auto began = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

// Engine: Engine(model, contract, threads), and `run(input)`, whose values last until the next.
template <class Engine>
class Program {
 public:
  explicit Program(const Request& request)
      : request_(request),
        contract_(read_contract(request.contract)),
        engine_(request.model, contract_, request.threads) {}

  void run() {
    std::string entries;
    for (const std::string& path : request_.pictures)
      entries += (entries.empty() ? "\n  " : ",\n  ") + quoted(base_name(path)) + ": {" +
                 entry(path) + "}";
    std::cout << "{\"class_names\": [" << joined(contract_.class_names, quoted) << "],"
              << times_ << "\n \"pictures\": {" << entries << "}}\n";
  }

 private:
  std::string entry(const std::string& path) {
    const OwnPicture own = read_picture(path);
    const Picture picture = own.view();
    const std::vector<Box> boxes = detect(picture);
    const std::string rows = "\"boxes\": [" + joined(boxes, row_of) + "]";
    const std::string stages = request_.stages.empty() ? "" : stages_of(path, picture) + ", ";
    if (request_.repeat) time(picture);
    return stages + rows;
  }

  std::vector<Box> detect(const Picture& picture) {
    prepare(picture, contract_, input_);
    return find(engine_.run(input_), picture.height, picture.width, contract_);
  }

  std::string stages_of(const std::string& path, const Picture& picture) {
    const std::string name = base_name(path);
    prepare(picture, contract_, input_);
    const std::string tensor =
        write_values(request_.stages, name + ".tensor.bin", {input_.data(), input_.size()});
    const std::vector<Values> outputs = engine_.run(input_);
    levels_of(outputs, contract_);  // checks their sizes
    std::string raw;
    for (std::size_t i = 0; i < outputs.size(); ++i)
      raw += (i ? ", " : "") + quoted(contract_.outputs[i]) + ": " +
             write_values(request_.stages, name + ".raw" + std::to_string(i) + ".bin", outputs[i]);
    return "\"tensor\": " + tensor + ", \"raw\": {" + raw + "}";
  }

  void time(const Picture& picture) {
    std::vector<double> network, all;
    for (int i = 0; i < request_.repeat; ++i) {
      network.push_back(seconds_of([&] { engine_.run(input_); }));
      all.push_back(seconds_of([&] { detect(picture); }));
    }
    char text[120];
    std::snprintf(text, sizeof text, "\n \"network_ms\": %.3f, \"image_to_boxes_ms\": %.3f,",
                  median_ms(network), median_ms(all));
    times_ = text;  // of the last picture
  }

  const Request request_;
  const Contract contract_;
  Engine engine_;
  std::vector<float> input_;
  std::string times_;
};

template <class Engine>
int main_of(int count, char** arguments) {
  try {
    const std::vector<std::string> given(arguments + 1, arguments + count);
    if (given.empty() || given[0] == "--help") {
      std::cout << "usage: " << base_name(arguments[0]) << kUsage;
      return given.empty() ? 2 : 0;
    }
    Program<Engine>(parse(given)).run();
    return 0;
  } catch (const Error& error) {
    std::cerr << base_name(arguments[0]) << ": " << error.what() << "\n";
    return 2;
  } catch (const std::exception& error) {  // of an engine, or no memory
    std::cerr << base_name(arguments[0]) << ": " << error.what() << "\n";
    return 1;
  }
}

}  // namespace nanodet
