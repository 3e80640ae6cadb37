#include "server/render/taps.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <numeric>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace kino::render {
namespace {

constexpr char kTokens[] = "tokens";
constexpr char kTextStates[] = "text_states";

int64_t Count(absl::Span<const int64_t> shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

// numpy.lib.format, version 1.0.
std::string NpyHeader(const std::vector<int64_t>& shape) {
  std::string header =
      absl::StrCat("{'descr': '<f4', 'fortran_order': False, 'shape': (",
                   absl::StrJoin(shape, ", "), shape.size() == 1 ? ",), }" : "), }");
  // Magic, version and length take 10 bytes; the whole is a multiple of 64 and ends with a newline.
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  out += static_cast<char>(header.size() & 0xff);
  out += static_cast<char>(header.size() >> 8);
  return out + header;
}

}  // namespace

absl::Status TapWriter::Prepare() {
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (!error) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("cannot create folder '", folder_, "': ", error.message()));
}

void TapWriter::Take(std::string_view name, absl::Span<const int64_t> shape, const float* data) {
  const std::string text(name);
  for (const std::string kind : {kTokens, kTextStates}) {
    if (absl::StartsWith(text, kind + "_")) {
      rows_[kind].push_back({{shape.begin(), shape.end()}, {data, data + Count(shape)}});
      return;
    }
  }
  Write(text, {shape.begin(), shape.end()}, data);
}

void TapWriter::Write(const std::string& name, const std::vector<int64_t>& shape,
                      const float* data) {
  const std::string path = absl::StrCat(folder_, "/", name, ".npy");
  std::ofstream file(path, std::ios::binary);
  file << NpyHeader(shape);
  file.write(reinterpret_cast<const char*>(data),
             static_cast<std::streamsize>(Count(shape)) * static_cast<int>(sizeof(float)));
  file.close();
  if (!file) status_.Update(absl::InternalError(absl::StrCat("cannot write '", path, "'")));
}

void TapWriter::WriteTokens() {
  const std::string path = absl::StrCat(folder_, "/", kTokens, ".json");
  std::vector<std::string> rows;
  for (const Values& row : rows_[kTokens]) {
    // Token ids fit a float32 exactly: vocabularies are far below 2^24.
    std::vector<int64_t> ids(row.data.begin(), row.data.end());
    rows.push_back(absl::StrCat("[", absl::StrJoin(ids, ", "), "]"));
  }
  std::ofstream file(path);
  file << "{\"input_ids\": [" << absl::StrJoin(rows, ", ") << "]}\n";
  file.close();
  if (!file) status_.Update(absl::InternalError(absl::StrCat("cannot write '", path, "'")));
}

absl::Status TapWriter::Finish() {
  if (!rows_[kTokens].empty()) WriteTokens();
  Values joined;
  for (const Values& row : rows_[kTextStates]) {
    if (joined.shape.empty()) {
      joined = row;
      continue;
    }
    if (!std::equal(row.shape.begin() + 1, row.shape.end(), joined.shape.begin() + 1,
                    joined.shape.end())) {
      return absl::InternalError("the text rows' states differ in shape");
    }
    joined.shape[0] += row.shape[0];
    joined.data.insert(joined.data.end(), row.data.begin(), row.data.end());
  }
  if (!joined.shape.empty()) Write(kTextStates, joined.shape, joined.data.data());
  return status_;
}

}  // namespace kino::render
