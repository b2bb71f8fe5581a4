// From a picture to the network's input, and from its outputs to boxes: all that a program has to do
// around a model's file, with the standard library alone. Copy this header into yours.
//
// What is right is told by contract.json of a conformance kit (nanodet-d2 export --kit), which
// contract.hpp reads; whether a program does it, by `nanodet-d2 check`. Boxes are x0, y0, x1, y1.

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace nanodet {

// What a user gave is not as it should be; the message says what was found and what is allowed.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The contract's fields that vary; the others have one value so far, and are what this header does.
struct Contract {
  std::string kind;                     // "raw" or "decoded"
  std::string input_name;               //
  int height = 0, width = 0;            // of the input, pixels
  bool fit = false;                     // pictures keep their proportions in it
  bool rgb = false;                     // order of the input's channels; pictures are BGR
  bool channels_last = false;           // NHWC
  std::array<float, 3> mean{}, std{};   // in the input's order, of values in [0, 255]
  std::vector<std::string> outputs;     // names
  std::vector<std::size_t> sizes;       // numbers of values in each, for one picture
  std::vector<std::string> class_names;
  std::vector<int> strides;
  float prior_offset = 0;               // from a cell's corner, in strides
  int reg_max = 0;
  float score_threshold = 0, nms_threshold = 0;
  std::size_t max_detections = 0;
  bool voting = false;                  // whether kept boxes move to the mean of what they suppress
  float vote_threshold = 0;             // IoU above which a suppressed box counts for it
  double vote_power = 1;                // of scores, which are the weights
};

// A picture, or its part: rows of BGR bytes, `step` bytes from one row to the next.
struct Picture {
  const std::uint8_t* data = nullptr;
  int height = 0, width = 0;
  std::ptrdiff_t step = 0;
};

struct Box {
  float x0 = 0, y0 = 0, x1 = 0, y1 = 0;
  float score = 0;
  int label = 0;  // index of class_names

  bool empty() const { return !(x1 > x0 && y1 > y0); }  // so is one with a NaN
};

// Float values of one output of the network.
struct Values {
  const float* data = nullptr;
  std::size_t size = 0;
};

// ---- the input ---------------------------------------------------------------------------------

// Where a picture lies in the input: its point x is at x * scale_x + shift_x there.
struct Place {
  int height = 0, width = 0;  // that it covers, from the upper left
  double scale_x = 1, scale_y = 1, shift_x = 0, shift_y = 0;
};

// Stretched to the whole input; or fitted into it by one factor, its size rounded down, and what
// that leaves over, less than a pixel, shared by both sides.
inline Place place_of(int height, int width, const Contract& contract) {
  Place place{contract.height, contract.width, double(contract.width) / width,
              double(contract.height) / height};
  if (!contract.fit) return place;
  const double factor = std::min(place.scale_x, place.scale_y);
  place.height = std::max(1, int(factor * height));
  place.width = std::max(1, int(factor * width));
  const double scale = std::min(double(place.height) / height, double(place.width) / width);
  place.scale_x = place.scale_y = scale;
  place.shift_x = place.width / 2.0 - scale * width / 2;
  place.shift_y = place.height / 2.0 - scale * height / 2;
  return place;
}

// Where the pixels of a row (or column) lie between two of the picture, in steps of 1/32.
struct Positions {
  static constexpr int steps = 32;
  std::vector<int> first, share;  // index of the first of the two; steps from there to the second

  void add(double position) {
    const auto rounded = std::llrint(position);  // of two as near to the even one
    const auto rest = (rounded % steps + steps) % steps;
    first.push_back(int((rounded - rest) / steps));
    share.push_back(int(rest));
  }
};

// Output pixel i lies at (i - shift) / scale: no half-pixel centres. Where that is halfway between
// two steps, roundings decide: they are those of OpenCV's warpPerspective, which inverts a matrix by
// its cofactors and counts columns from the start of their block.
inline void find_positions(const Place& place, Positions& rows, Positions& columns) {
  const double factor = 1 / (place.scale_x * place.scale_y);
  const double unit = Positions::steps / (place.scale_x * place.scale_y * factor);
  const double step_x = place.scale_y * factor, step_y = place.scale_x * factor;
  const double start_x = -(place.shift_x * place.scale_y) * factor;
  const double start_y = -(place.scale_x * place.shift_y) * factor;
  const int block = 1024 / std::min(16, place.height);
  for (int i = 0; i < place.width; ++i) {
    const int within = i % block;
    columns.add((step_x * (i - within) + start_x + step_x * within) * unit);
  }
  for (int j = 0; j < place.height; ++j) rows.add((step_y * j + start_y) * unit);
}

// The network's input for a picture: where it lies, bilinear with black beyond its edge, rounded to
// grey levels; then (level - mean) / std. The rest of the input is 0. CHW, or HWC where the contract
// has the channels last.
inline void prepare(const Picture& picture, const Contract& contract, std::vector<float>& input) {
  if (!picture.data || picture.height < 1 || picture.width < 1) throw Error("the picture is empty");
  std::array<std::array<float, 256>, 3> tables;  // by channel of the picture
  std::array<std::size_t, 3> places;             // of its values in the input
  const std::size_t area = std::size_t(contract.height) * contract.width;
  for (int channel = 0; channel < 3; ++channel) {
    const int order = contract.rgb ? 2 - channel : channel;
    places[channel] = contract.channels_last ? order : order * area;
    for (int level = 0; level < 256; ++level)
      tables[channel][level] = (float(level) - contract.mean[order]) / contract.std[order];
  }
  const Place place = place_of(picture.height, picture.width, contract);
  const int width = place.width;
  input.resize(3 * area);
  if (contract.fit) std::fill(input.begin(), input.end(), 0.f);
  const std::size_t between = contract.channels_last ? 3 : 1;  // from one pixel to the next
  Positions rows, columns;
  find_positions(place, rows, columns);
  // Two rows of the picture, interpolated along x, in 1/32 of a level. Rows and columns of black are
  // what lies beyond the edge.
  std::vector<int> upper(3 * width), lower(3 * width);
  const auto along_x = [&](int row, std::vector<int>& out) {
    if (row < 0 || row >= picture.height) return std::fill(out.begin(), out.end(), 0);
    const std::uint8_t* const line = picture.data + row * picture.step;
    for (int i = 0; i < width; ++i) {
      const int share = columns.share[i], first = columns.first[i];
      const bool left = first >= 0 && first < picture.width;
      const bool right = first >= -1 && first + 1 < picture.width;
      for (int channel = 0; channel < 3; ++channel) {
        const std::ptrdiff_t at = 3 * std::ptrdiff_t(first) + channel;
        out[3 * i + channel] = (left ? line[at] * (Positions::steps - share) : 0) +
                               (right ? line[at + 3] * share : 0);
      }
    }
  };
  constexpr int one = Positions::steps * Positions::steps;
  constexpr int none = std::numeric_limits<int>::min();
  int upper_row = none, lower_row = none;  // that the two hold
  for (int j = 0; j < place.height; ++j) {
    const int row = rows.first[j], share = rows.share[j];
    if (row == lower_row) {
      upper.swap(lower);
      std::swap(upper_row, lower_row);
    }
    if (row != upper_row) along_x(upper_row = row, upper);
    if (share && row + 1 != lower_row) along_x(lower_row = row + 1, lower);
    float* out = input.data() + std::size_t(j) * contract.width * between;
    for (int channel = 0; channel < 3; ++channel) {
      const float* const table = tables[channel].data();
      float* const line = out + places[channel];
      for (int i = 0; i < width; ++i) {
        const int at = 3 * i + channel;
        const int sum = upper[at] * (Positions::steps - share) + (share ? lower[at] * share : 0);
        line[i * between] = table[(sum + one / 2) / one];
      }
    }
  }
}

// ---- the outputs -------------------------------------------------------------------------------

// The priors of one stride, and where the outputs have their scores and box logits.
struct Level {
  int stride = 0, rows = 0, columns = 0;
  std::size_t first = 0;  // prior of all levels
  const float* scores = nullptr;
  std::size_t score_step = 0, class_step = 0;  // from one prior, or class, to the next
  const float* sides = nullptr;                // logits, or the boxes of a decoded file
  std::size_t side_step = 0;

  std::size_t size() const { return std::size_t(rows) * columns; }
};

// The levels of a network's outputs, whichever of the three forms they have: one output of rows of
// scores and logits, scores and logits of each level (ncnn), or boxes and scores (decoded).
inline std::vector<Level> levels_of(const std::vector<Values>& outputs, const Contract& contract) {
  if (outputs.size() != contract.sizes.size())
    throw Error("the network has " + std::to_string(outputs.size()) + " outputs; the contract has " +
                std::to_string(contract.sizes.size()));
  for (std::size_t i = 0; i < outputs.size(); ++i)
    if (!outputs[i].data || outputs[i].size != contract.sizes[i])
      throw Error("output " + contract.outputs[i] + " has " + std::to_string(outputs[i].size) +
                  " values; the contract has " + std::to_string(contract.sizes[i]));
  const std::size_t classes = contract.class_names.size();
  const std::size_t logits = 4 * (std::size_t(contract.reg_max) + 1);
  std::vector<Level> levels;
  std::size_t first = 0;
  for (std::size_t i = 0; i < contract.strides.size(); ++i) {
    Level level;
    level.stride = contract.strides[i];
    level.rows = (contract.height + level.stride - 1) / level.stride;
    level.columns = (contract.width + level.stride - 1) / level.stride;
    level.first = first;
    if (contract.kind == "decoded") {
      level.scores = outputs[1].data + first * classes;
      level.score_step = classes, level.class_step = 1;
      level.sides = outputs[0].data + first * 4, level.side_step = 4;
    } else if (outputs.size() == 1) {
      level.scores = outputs[0].data + first * (classes + logits);
      level.score_step = classes + logits, level.class_step = 1;
      level.sides = level.scores + classes, level.side_step = classes + logits;
    } else {
      level.scores = outputs[i].data;
      level.score_step = 1, level.class_step = level.size();
      level.sides = outputs[contract.strides.size() + i].data, level.side_step = logits;
    }
    levels.push_back(level);
    first += level.size();
  }
  return levels;
}

// A pair of prior and class whose score is above the threshold.
struct Candidate {
  float score;
  std::uint32_t prior;  // of its level
  std::uint16_t level;
  std::uint32_t label;

  // Which comes later: worse ones; of equal scores the later prior, then the later class.
  friend bool operator<(const Candidate& a, const Candidate& b) {
    if (a.score != b.score) return a.score < b.score;
    if (a.level != b.level) return a.level > b.level;
    if (a.prior != b.prior) return a.prior > b.prior;
    return a.label > b.label;
  }
};

inline std::vector<Candidate> candidates(const std::vector<Level>& levels,
                                         const Contract& contract) {
  std::vector<Candidate> found;
  const float threshold = contract.score_threshold;
  for (std::size_t n = 0; n < levels.size(); ++n) {
    const Level& level = levels[n];
    const bool by_prior = level.class_step == 1;  // what is next to each other in memory
    const std::size_t outer = by_prior ? level.size() : contract.class_names.size();
    const std::size_t inner = by_prior ? contract.class_names.size() : level.size();
    const std::size_t step = by_prior ? level.score_step : level.class_step;
    for (std::size_t i = 0; i < outer; ++i) {
      const float* const line = level.scores + i * step;
      // Most lines have none, and this is quick to see.
      unsigned any = 0;
      for (std::size_t j = 0; j < inner; ++j) any |= unsigned(line[j] > threshold);
      if (!any) continue;
      for (std::size_t j = 0; j < inner; ++j)
        if (line[j] > threshold)
          found.push_back({line[j], std::uint32_t(by_prior ? i : j), std::uint16_t(n),
                           std::uint32_t(by_prior ? j : i)});
    }
  }
  return found;
}

// Distance in strides: the mean of 0, 1, …, weighted by the softmax of the logits (Li et al. 2020,
// "Generalized Focal Loss").
inline float distance(const float* logits, int count) {
  const float most = *std::max_element(logits, logits + count);
  float sum = 0, weighted = 0;
  for (int i = 0; i < count; ++i) {
    const float weight = std::exp(logits[i] - most);
    sum += weight;
    weighted += weight * float(i);
  }
  return weighted / sum;
}

inline float clipped(float value, float most) {  // keeps a NaN
  return value < 0 ? 0 : value > most ? most : value;
}

inline Box box_of(const Candidate& candidate, const Level& level, const Contract& contract) {
  const float* const sides = level.sides + candidate.prior * level.side_step;
  Box box;
  box.score = candidate.score;
  box.label = int(candidate.label);
  if (contract.kind == "decoded") {
    box.x0 = sides[0], box.y0 = sides[1], box.x1 = sides[2], box.y1 = sides[3];
    return box;
  }
  const int bins = contract.reg_max + 1;
  const float stride = float(level.stride);
  const float offset = contract.prior_offset;
  const float x = (float(candidate.prior % unsigned(level.columns)) + offset) * stride;
  const float y = (float(candidate.prior / unsigned(level.columns)) + offset) * stride;
  box.x0 = clipped(x - distance(sides, bins) * stride, float(contract.width));
  box.y0 = clipped(y - distance(sides + bins, bins) * stride, float(contract.height));
  box.x1 = clipped(x + distance(sides + 2 * bins, bins) * stride, float(contract.width));
  box.y1 = clipped(y + distance(sides + 3 * bins, bins) * stride, float(contract.height));
  return box;
}

inline float iou(const Box& a, const Box& b) {
  const float w = std::min(a.x1, b.x1) - std::max(a.x0, b.x0);
  const float h = std::min(a.y1, b.y1) - std::max(a.y0, b.y0);
  const float overlap = std::max(w, 0.f) * std::max(h, 0.f);
  const float both = (a.x1 - a.x0) * (a.y1 - a.y0) + (b.x1 - b.x0) * (b.y1 - b.y0) - overlap;
  return overlap / std::max(both, 1e-9f);
}

// A kept box, and what it becomes by voting: the mean of itself and of what it suppressed, weighted
// by powers of their scores (after Gidaris and Komodakis 2015). Its own weight is 1.
struct Kept {
  Box box;
  double weights = 0, x0 = 0, y0 = 0, x1 = 0, y1 = 0;

  void add(const Box& vote, double power) {
    const double weight = std::pow(double(vote.score) / box.score, power);
    weights += weight;
    x0 += weight * vote.x0, y0 += weight * vote.y0, x1 += weight * vote.x1, y1 += weight * vote.y1;
  }
  Box mean() const {
    Box out = box;
    out.x0 = float(x0 / weights), out.y0 = float(y0 / weights);
    out.x1 = float(x1 / weights), out.y1 = float(y1 / weights);
    return out;
  }
};

// What class-wise NMS keeps, best first, in pixels of the input. A box goes that overlaps a better
// one of its class, which is kept itself, by more than the threshold; empty boxes overlap nothing
// and are counted. It ends when enough are kept; what would come then has no vote.
inline std::vector<Box> suppress(std::vector<Candidate> found, const std::vector<Level>& levels,
                                 const Contract& contract) {
  std::vector<Kept> kept;
  std::make_heap(found.begin(), found.end());  // only as many are sorted as are looked at
  for (auto end = found.end(); end != found.begin() && kept.size() < contract.max_detections;) {
    std::pop_heap(found.begin(), end--);
    const Box box = box_of(*end, levels[end->level], contract);
    const auto better = std::find_if(kept.begin(), kept.end(), [&](const Kept& other) {
      return other.box.label == box.label && iou(other.box, box) > contract.nms_threshold;
    });
    if (better == kept.end()) {
      kept.push_back({box});
      if (contract.voting) kept.back().add(box, contract.vote_power);
    } else if (contract.voting && iou(better->box, box) > contract.vote_threshold) {
      better->add(box, contract.vote_power);
    }
  }
  std::vector<Box> boxes;
  for (const Kept& one : kept) boxes.push_back(contract.voting ? one.mean() : one.box);
  return boxes;
}

// Boxes in pixels of a picture of boxes in pixels of the input; empty ones are dropped.
inline std::vector<Box> in_picture(const std::vector<Box>& kept, int height, int width,
                                   const Contract& contract) {
  const Place place = place_of(height, width, contract);
  const auto x = [&](float value) {
    return clipped((value - float(place.shift_x)) * float(1 / place.scale_x), float(width));
  };
  const auto y = [&](float value) {
    return clipped((value - float(place.shift_y)) * float(1 / place.scale_y), float(height));
  };
  std::vector<Box> boxes;
  for (Box box : kept) {
    if (box.empty()) continue;
    box.x0 = x(box.x0), box.x1 = x(box.x1);
    box.y0 = y(box.y0), box.y1 = y(box.y1);
    if (!box.empty()) boxes.push_back(box);
  }
  return boxes;
}

// All of it: the boxes of a picture (height, width) in what the network gave for it.
inline std::vector<Box> find(const std::vector<Values>& outputs, int height, int width,
                             const Contract& contract) {
  const std::vector<Level> levels = levels_of(outputs, contract);
  return in_picture(suppress(candidates(levels, contract), levels, contract), height, width,
                    contract);
}

}  // namespace nanodet
