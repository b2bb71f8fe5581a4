// Reads picture files: PPM (P6) by itself, others by OpenCV where the program is built with it.

#pragma once

#include <cctype>

#include "contract.hpp"

#ifdef NANODET_WITH_OPENCV
#include <opencv2/imgcodecs.hpp>
#endif

namespace nanodet {

// A picture and its memory.
struct OwnPicture {
  std::vector<std::uint8_t> bytes;
  int height = 0, width = 0;

  Picture view() const { return {bytes.data(), height, width, std::ptrdiff_t(width) * 3}; }
};

inline OwnPicture read_ppm(const std::string& path, const std::string& content) {
  constexpr std::size_t max_pixels = 89'478'485;  // as nanodet-d2
  std::size_t at = 2, numbers[3] = {};            // width, height, the highest level
  const auto is_space = [&] { return std::isspace(static_cast<unsigned char>(content[at])); };
  for (std::size_t& number : numbers) {
    while (at < content.size() && (is_space() || content[at] == '#'))
      at = content[at] == '#' ? std::min(content.find('\n', at), content.size()) : at + 1;
    for (; at < content.size() && content[at] >= '0' && content[at] <= '9'; ++at)
      number = std::min<std::size_t>(number * 10 + std::size_t(content[at] - '0'), 1u << 30);
  }
  if (at >= content.size() || !is_space() || !numbers[0] || !numbers[1] || numbers[2] != 255)
    throw Error(path + " is no PPM file of 8 bits per colour");
  if (numbers[1] > max_pixels / numbers[0])
    throw Error(path + " declares too many pixels; allowed: " + std::to_string(max_pixels));
  const std::size_t size = 3 * numbers[0] * numbers[1];
  if (content.size() - ++at < size) throw Error(path + " is truncated");
  OwnPicture picture{{content.begin() + std::ptrdiff_t(at),
                      content.begin() + std::ptrdiff_t(at + size)},
                     int(numbers[1]), int(numbers[0])};
  for (std::size_t i = 0; i < size; i += 3) std::swap(picture.bytes[i], picture.bytes[i + 2]);
  return picture;
}

inline OwnPicture read_picture(const std::string& path) {
  const std::string content = read_text(path);
  if (content.empty()) throw Error(path + " is empty");
  if (content.compare(0, 2, "P6") == 0) return read_ppm(path, content);
#ifdef NANODET_WITH_OPENCV
  const std::vector<std::uint8_t> bytes(content.begin(), content.end());
  const cv::Mat image = cv::imdecode(bytes, cv::IMREAD_COLOR);
  if (image.empty()) throw Error(path + " is no picture that OpenCV reads");
  return {{image.data, image.data + image.total() * 3}, image.rows, image.cols};
#else
  throw Error(path + " is no PPM file (P6); others are read where OpenCV was there to build with");
#endif
}

}  // namespace nanodet
