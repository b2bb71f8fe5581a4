// Reads contract.json: flat json of texts, numbers, true or false, and lists of those.

#pragma once

#include <cctype>
#include <fstream>
#include <iterator>
#include <locale>
#include <map>
#include <sstream>

#include "nanodet.hpp"

namespace nanodet {

inline std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file.is_open() || file.bad()) throw Error(path + " cannot be read");
  return text;
}

// A value of json; only the field of its type is of use.
struct Json {
  enum Type { null, truth, number, text, list, object } type = null;
  bool is_true = false;
  double value = 0;
  std::string string;
  std::vector<Json> items;
  std::map<std::string, Json> fields;
};

class JsonReader {
 public:
  JsonReader(const std::string& text, const std::string& source) : text_(text), source_(source) {}

  Json read() {
    Json json = any(0);
    skip();
    if (at_ != text_.size()) fail("more than one value");
    return json;
  }

 private:
  static constexpr int kDepth = 16;  // no contract goes deeper than 3

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(source_ + " is not json: " + what + " at byte " + std::to_string(at_));
  }
  void skip() {
    at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size());
  }
  char next() {
    if (at_ >= text_.size()) fail("it ends too early");
    return text_[at_++];
  }
  bool take(char c) {
    skip();
    const bool there = at_ < text_.size() && text_[at_] == c;
    at_ += there;
    return there;
  }
  void need(char c) {
    if (!take(c)) fail(std::string("no ") + c);
  }
  bool word(const std::string& name) {
    const bool there = text_.compare(at_, name.size(), name) == 0;
    if (there) at_ += name.size();
    return there;
  }

  Json any(int depth) {
    if (depth > kDepth) fail("lists nested too deeply");
    Json json;
    skip();
    if (at_ >= text_.size()) fail("it ends too early");
    if (text_[at_] == '"') {
      json.type = Json::text;
      json.string = string();
    } else if (take('[')) {
      json.type = Json::list;
      if (take(']')) return json;
      do json.items.push_back(any(depth + 1));
      while (take(','));
      need(']');
    } else if (take('{')) {
      json.type = Json::object;
      if (take('}')) return json;
      do {
        skip();
        std::string name = string();
        need(':');
        json.fields[name] = any(depth + 1);
      } while (take(','));
      need('}');
    } else if (word("true") || word("false")) {
      json.type = Json::truth;
      json.is_true = text_[at_ - 2] == 'u';  // tr-u-e
    } else if (!word("null")) {
      json.type = Json::number;
      json.value = number();
    }
    return json;
  }

  double number() {
    // std::from_chars for double is not in every C++17 library; a stream has no locale of its own.
    const std::size_t end = std::min(text_.find_first_not_of("+-.0123456789eE", at_), text_.size());
    std::istringstream digits(text_.substr(at_, end - at_));
    digits.imbue(std::locale::classic());
    double value = 0;
    if (!(digits >> value) || !digits.eof()) fail("no value");
    at_ = end;
    return value;
  }

  std::string string() {
    if (next() != '"') fail("no text");
    std::string out;
    for (char c = next(); c != '"'; c = next()) {
      if (c != '\\') {
        out += c;
        continue;
      }
      c = next();
      const std::string from = "\"\\/bfnrt", to = "\"\\/\b\f\n\r\t";
      const std::size_t place = from.find(c);
      if (place != std::string::npos)
        out += to[place];
      else if (c == 'u')
        append_utf8(out, code_point());
      else
        fail("an unknown escape");
    }
    return out;
  }
  unsigned code_unit() {
    unsigned unit = 0;
    for (int i = 0; i < 4; ++i) {
      const std::size_t digit = std::string("0123456789abcdef").find(char(std::tolower(next())));
      if (digit == std::string::npos) fail("an unknown escape");
      unit = 16 * unit + unsigned(digit);
    }
    return unit;
  }
  unsigned code_point() {
    const unsigned unit = code_unit();
    if (unit < 0xD800 || unit > 0xDBFF || !word("\\u")) return unit;
    return 0x10000 + ((unit - 0xD800) << 10) + ((code_unit() - 0xDC00) & 0x3FF);
  }
  static void append_utf8(std::string& out, unsigned code) {
    if (code < 0x80) {
      out += char(code);
      return;
    }
    const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static constexpr unsigned first[] = {0, 0xC0, 0xE0, 0xF0};
    out += char(first[more] | (code >> (6 * more)));
    for (int i = more - 1; i >= 0; --i) out += char(0x80 | ((code >> (6 * i)) & 0x3F));
  }

  const std::string& text_;
  const std::string& source_;
  std::size_t at_ = 0;
};

// The fields of a contract, with errors that name the field, what was found and what is allowed.
class Fields {
 public:
  Fields(const Json& json, const std::string& source) : json_(json), source_(source) {
    if (json.type != Json::object) fail("is no contract: no object");
  }

  [[noreturn]] void fail(std::string what) const {
    for (char& c : what)  // a file's text may tear the line
      if (static_cast<unsigned char>(c) < 0x20) c = '?';
    throw Error(source_ + " " + what);
  }

  bool has(const std::string& name) const { return json_.fields.count(name) != 0; }

  const Json& get(const std::string& name, Json::Type type, const char* allowed) const {
    const auto found = json_.fields.find(name);
    if (found == json_.fields.end()) fail("lacks " + name);
    if (found->second.type != type) fail("has another " + name + "; allowed: " + allowed);
    return found->second;
  }
  std::string text(const std::string& name) const {
    return get(name, Json::text, "a text").string;
  }
  double number(const std::string& name, double least, double most) const {
    return checked(name, get(name, Json::number, "a number"), least, most);
  }
  int whole(const std::string& name, int least, int most) const {
    return int(whole(name, get(name, Json::number, "a number"), least, most));
  }
  std::vector<std::string> texts(const std::string& name) const {
    std::vector<std::string> out;
    for (const Json& item : get(name, Json::list, "a list of texts").items) {
      if (item.type != Json::text) fail("has another " + name + "; allowed: a list of texts");
      out.push_back(item.string);
    }
    return out;
  }
  std::vector<int> wholes(const std::string& name, int least, int most) const {
    std::vector<int> out;
    for (const Json& item : get(name, Json::list, "a list of numbers").items)
      out.push_back(int(whole(name, item, least, most)));
    return out;
  }
  std::array<float, 3> three(const std::string& name) const {
    const Json& list = get(name, Json::list, "three numbers");
    if (list.items.size() != 3) fail("has another " + name + "; allowed: three numbers");
    std::array<float, 3> out;
    for (int i = 0; i < 3; ++i) out[i] = float(checked(name, list.items[i], -1e6, 1e6));
    return out;
  }
  // The product of each list of sizes.
  std::vector<std::size_t> products(const std::string& name, double most) const {
    std::vector<std::size_t> out;
    for (const Json& shape : get(name, Json::list, "lists of numbers").items) {
      double product = 1;
      for (const Json& item : shape.items) product *= whole(name, item, 1, 1 << 30);
      if (shape.type != Json::list || product > most)
        fail("has another " + name + "; allowed: lists of sizes, of at most 2^28 values");
      out.push_back(std::size_t(product));
    }
    return out;
  }
  // A field that has one value so far.
  void require(const std::string& name, const std::string& needed) const {
    const std::string found = text(name);
    if (found != needed) fail("has " + name + " " + found + "; allowed: " + needed);
  }
  void require(const std::string& name, double needed) const { number(name, needed, needed); }

 private:
  double checked(const std::string& name, const Json& json, double least, double most) const {
    if (json.type != Json::number || !(json.value >= least && json.value <= most)) {
      std::ostringstream said;
      said << "has another " << name << "; allowed: " << least << " to " << most;
      fail(said.str());
    }
    return json.value;
  }
  double whole(const std::string& name, const Json& json, int least, int most) const {
    const double value = checked(name, json, least, most);
    if (value != std::floor(value)) fail("has another " + name + "; allowed: whole numbers");
    return value;
  }

  const Json& json_;
  const std::string& source_;
};

// What this header does; a contract that asks for something else is refused.
inline void require_known_rules(const Fields& fields) {
  fields.require("contract_version", 1);
  for (const auto& [name, needed] : std::map<std::string, std::string>{
           {"input_dtype", "float32"},
           {"input_interpolation", "bilinear"},
           {"input_position_rounding", "half_to_even"},
           {"input_value_rounding", "half_up"},
           {"score_form", "after_sigmoid"},
           {"score_comparison", "greater"},
           {"prior_order", "level_row_column"},
           {"box_form", "softmax_mean"},
           {"box_unit", "stride"},
           {"box_sides", "left_top_right_bottom"},
           {"box_clip", "input"},
           {"nms_scope", "class"},
           {"nms_rivals", "kept"},
           {"nms_comparison", "greater"},
           {"nms_order", "score_prior_class"},
           {"nms_limit", "kept"},
           {"empty_boxes", "dropped"},
       })
    fields.require(name, needed);
  fields.require("input_pixel_offset", 0);
  fields.require("input_position_steps", Positions::steps);
  fields.require("input_border", 0);
}

inline std::string one_of(const Fields& fields, const std::string& name, const std::string& first,
                          const std::string& second) {
  const std::string found = fields.text(name);
  if (found != first && found != second)
    fields.fail("has " + name + " " + found + "; allowed: " + first + ", " + second);
  return found;
}

// Numbers of values in the outputs that the levels need.
inline std::vector<std::size_t> needed_sizes(const Contract& contract) {
  const std::size_t classes = contract.class_names.size();
  const std::size_t logits = 4 * (std::size_t(contract.reg_max) + 1);
  std::vector<std::size_t> cells;
  std::size_t all = 0;
  for (const int stride : contract.strides) {
    cells.push_back(std::size_t((contract.height + stride - 1) / stride) *
                    std::size_t((contract.width + stride - 1) / stride));
    all += cells.back();
  }
  if (contract.kind == "decoded") return {4 * all, classes * all};
  if (contract.outputs.size() == 1) return {(classes + logits) * all};
  std::vector<std::size_t> sizes;
  for (const std::size_t count : cells) sizes.push_back(classes * count);
  for (const std::size_t count : cells) sizes.push_back(logits * count);
  return sizes;
}

inline Contract read_contract(const std::string& path) {
  const std::string text = read_text(path);
  const Json json = JsonReader(text, path).read();
  const Fields fields(json, path);
  require_known_rules(fields);
  Contract contract;
  contract.kind = one_of(fields, "kind", "raw", "decoded");  // end2end leaves nothing to do
  contract.input_name = fields.text("input_name");
  contract.height = fields.whole("input_height", 1, 8192);
  contract.width = fields.whole("input_width", 1, 8192);
  contract.fit = one_of(fields, "input_resize", "stretch", "fit") == "fit";
  contract.rgb = one_of(fields, "input_channel_order", "BGR", "RGB") == "RGB";
  contract.channels_last = one_of(fields, "input_axes", "NCHW", "NHWC") == "NHWC";
  contract.mean = fields.three("input_mean");
  contract.std = fields.three("input_std");
  for (const float value : contract.std)
    if (!(value > 0)) fields.fail("has another input_std; allowed: numbers above 0");
  contract.outputs = fields.texts("outputs");
  contract.class_names = fields.texts("class_names");
  if (contract.class_names.empty()) fields.fail("has no class_names");
  contract.strides = fields.wholes("strides", 1, 1024);
  if (contract.strides.empty() || contract.strides.size() > 16)
    fields.fail("has another strides; allowed: 1 to 16 of them");
  contract.prior_offset = float(fields.number("prior_offset", 0, 1));
  contract.reg_max = fields.whole("reg_max", 0, 255);
  contract.score_threshold = float(fields.number("score_threshold", 0, 1));
  contract.nms_threshold = float(fields.number("nms_threshold", 0, 1));
  contract.max_detections = std::size_t(fields.whole("max_detections", 0, 1 << 20));
  if (fields.has("nms")) {  // contracts from before it was there are plain
    contract.voting = one_of(fields, "nms", "plain", "voting") == "voting";
    contract.vote_threshold = float(fields.number("vote_threshold", 0, 1));
    fields.require("vote_comparison", "greater");
    fields.require("vote_owner", "first_kept");
    fields.require("vote_scope", "before_last_kept");
    fields.require("vote_weight", "score");
    if (fields.has("vote_power")) contract.vote_power = fields.number("vote_power", 0, 100);
  }
  contract.sizes = fields.products("output_shapes", 1 << 28);
  if (contract.sizes != needed_sizes(contract) || contract.outputs.size() != contract.sizes.size())
    fields.fail("has output_shapes that do not follow from kind, outputs, strides and classes");
  return contract;
}

}  // namespace nanodet
