// Model folders of strangers: safetensors and GGUF headers, and the JSON files that describe reads.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "engine/core/gguf.h"
#include "engine/core/safetensors.h"
#include "engine/describe/describe.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/memory_file.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::fuzz {
namespace {

namespace fs = std::filesystem;

std::string Safetensors(const std::string& header, size_t data_bytes) {
  std::string file;
  for (int shift = 0; shift < 64; shift += 8) {
    file.push_back(static_cast<char>(uint64_t{header.size()} >> shift & 0xff));
  }
  return file + header + std::string(data_bytes, 'x');
}

// What any reader of tensors promises of a file it accepts.
void CheckTensors(const engine::TensorFile& file, size_t size) {
  int64_t total = 0;
  int sum = 0;
  for (const auto& [name, entry] : file.tensors()) {
    int64_t elements = 1;
    for (const int64_t side : entry.shape) elements *= side;
    Require(entry.block == engine::GgmlType::kNone
                ? entry.bytes == elements * engine::DTypeSize(entry.dtype)
                : entry.bytes == elements / engine::GgmlBlockElements(entry.block) *
                                     engine::GgmlBlockBytes(entry.block),
            "bytes follow the shape");
    // Reads the ends, so that a tensor outside the file is seen by the sanitizer or the kernel.
    if (entry.bytes > 0) {
      sum += static_cast<int>(entry.data[0]) + static_cast<int>(entry.data[entry.bytes - 1]);
    }
    total += entry.bytes;
  }
  Require(sum >= 0 && total <= static_cast<int64_t>(size), "tensors lie in the file");
}

bool RunSafetensors(std::string_view bytes) {
  const MemoryFile file(bytes);
  const auto opened = engine::SafetensorsFile::Open(file.path());
  if (!opened.ok()) {
    Require(!opened.status().message().empty(), "a refusal says why");
    return false;
  }
  CheckTensors(**opened, bytes.size());
  return true;
}

bool RunGguf(std::string_view bytes) {
  const MemoryFile file(bytes);
  const auto opened = engine::GgufFile::Open(file.path());
  if (!opened.ok()) {
    Require(!opened.status().message().empty(), "a refusal says why");
    return false;
  }
  CheckTensors(**opened, bytes.size());
  return true;
}

std::vector<std::string> GgufSeeds() {
  using testing::GgufNumber;
  using testing::GgufText;
  testing::GgufWriter tensors, values;
  tensors.tensors = {{"a", {2, 3}, testing::kGgmlF32, std::string(24, 'x')},
                     {"b", {32, 2}, testing::kGgmlQ8_0, std::string(68, 'y')},
                     {"c", {256}, testing::kGgmlQ4_K, std::string(144, 'z')},
                     {"none", {0}, testing::kGgmlBF16}};
  values.version = 2;
  values.alignment = 8;
  values.Add("general.alignment", testing::kGgufUint32, GgufNumber(uint32_t{8}));
  values.Add("text", testing::kGgufString, GgufText("ltxv"));
  values.Add(
      "texts", testing::kGgufArray,
      GgufNumber(testing::kGgufString) + GgufNumber(uint64_t{2}) + GgufText("a") + GgufText(""));
  values.Add("numbers", testing::kGgufArray,
             GgufNumber(testing::kGgufUint64) + GgufNumber(uint64_t{1}) + GgufNumber(uint64_t{7}));
  values.tensors = {{"scalar", {}, testing::kGgmlF16, "12"}};
  return {testing::GgufWriter{}.Bytes(), tensors.Bytes(), values.Bytes()};
}

std::vector<std::string> SafetensorsSeeds() {
  return {
      Safetensors("{}", 0),
      Safetensors(R"({"__metadata__":{"format":"pt"},)"
                  R"("a.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                  R"("a.bias":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}})",
                  32),
      Safetensors(R"({"scalar":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
                  R"("empty":{"dtype":"U8","shape":[0,7],"data_offsets":[8,8]}}   )",
                  8),
  };
}

const char* const kDescribedFiles[] = {"model_index.json", "transformer/config.json",
                                       "vae/config.json", "text_encoder/config.json",
                                       "scheduler/scheduler_config.json"};

fs::path Demo() { return fs::path(KINO_SOURCE_DIR) / "models" / "demo"; }

// The demo model by links, with one of its JSON files replaced: the input's first byte says which.
bool RunDescribe(std::string_view bytes) {
  static const testing::TempDir* const folder = [] {
    auto* made = new testing::TempDir;
    for (const auto& entry : fs::recursive_directory_iterator(Demo())) {
      const fs::path to = fs::path(made->path()) / fs::relative(entry.path(), Demo());
      if (entry.is_directory()) {
        fs::create_directories(to);
      } else {
        fs::create_symlink(entry.path(), to);
      }
    }
    return made;
  }();
  if (bytes.empty()) return false;
  const size_t which = static_cast<unsigned char>(bytes[0]) % std::size(kDescribedFiles);
  const fs::path replaced = fs::path(folder->path()) / kDescribedFiles[which];
  fs::remove(replaced);
  std::ofstream(replaced, std::ios::binary) << bytes.substr(1);
  const auto model = engine::DescribeModel(folder->path());
  fs::remove(replaced);
  fs::create_symlink(Demo() / kDescribedFiles[which], replaced);
  if (!model.ok()) {
    Require(!model.status().message().empty(), "a refusal says why");
    return false;
  }
  for (const engine::TaskDescription& task : model->Tasks()) {
    engine::ResolveRequest(*model, task.defaults, 1);
  }
  return true;
}

std::vector<std::string> DescribeSeeds() {
  std::vector<std::string> seeds;
  for (size_t i = 0; i < std::size(kDescribedFiles); ++i) {
    std::ostringstream text;
    text << static_cast<char>(i) << std::ifstream(Demo() / kDescribedFiles[i]).rdbuf();
    seeds.push_back(text.str());
  }
  return seeds;
}

}  // namespace

std::vector<FuzzTarget> CheckpointTargets() {
  return {{"safetensors", RunSafetensors, SafetensorsSeeds, 4000},
          {"gguf", RunGguf, GgufSeeds, 4000},
          {"describe", RunDescribe, DescribeSeeds, 400}};
}

}  // namespace kino::fuzz
