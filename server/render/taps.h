// --taps: a run's intermediates as files, for comparing stage by stage with diffusers
// (tests/parity). One thread at a time.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace kino::render {

// Each tap NAME becomes NAME.npy, float32. Two kinds come one text row at a time, as tokens_I and
// text_states_I, and are put together: tokens.json {"input_ids": [[...], ...]} and text_states.npy
// [R, L, D].
class TapWriter {
 public:
  explicit TapWriter(std::string folder) : folder_(std::move(folder)) {}

  absl::Status Prepare();
  // engine::Tap. Errors are kept for Finish.
  void Take(std::string_view name, absl::Span<const int64_t> shape, const float* data);
  absl::Status Finish();

 private:
  struct Values {
    std::vector<int64_t> shape;
    std::vector<float> data;
  };
  void Write(const std::string& name, const std::vector<int64_t>& shape, const float* data);
  void WriteTokens();

  const std::string folder_;
  absl::Status status_;
  std::map<std::string, std::vector<Values>> rows_;
};

}  // namespace kino::render
