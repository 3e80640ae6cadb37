#include "server/render/stats.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <sys/resource.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "server/convert/json.h"
#include "server/convert/request.h"

namespace kino::render {
namespace {

using google::protobuf::Struct;
using google::protobuf::Value;

Value Number(double number) {
  Value value;
  value.set_number_value(number);
  return value;
}

Value Text(const std::string& text) {
  Value value;
  value.set_string_value(text);
  return value;
}

Value Object(const google::protobuf::Message& message) {
  Value value;
  // The message's own JSON form, which is a JSON object.
  const auto parsed = google::protobuf::util::JsonStringToMessage(
      convert::ToJson(message, convert::JsonLayout::kOneLine), value.mutable_struct_value());
  if (!parsed.ok()) value.mutable_struct_value()->Clear();
  return value;
}

void AddStage(const engine::StageStats& stats, google::protobuf::ListValue* stages) {
  auto& fields = *stages->add_values()->mutable_struct_value()->mutable_fields();
  fields["stage"] = Text(engine::StageName(stats.stage));
  fields["seconds"] = Number(stats.seconds);
  fields["peak_device_bytes"] = Number(static_cast<double>(stats.peak_device_bytes));
  fields["peak_host_bytes"] = Number(static_cast<double>(stats.peak_host_bytes));
  fields["peak_weight_bytes"] = Number(static_cast<double>(stats.peak_weight_bytes));
}

}  // namespace

absl::Status WriteStats(const std::string& path, const Stats& stats) {
  Struct root;
  auto& fields = *root.mutable_fields();
  fields["version"] = Text(KINO_VERSION);
  fields["model"] = Text(stats.model);
  fields["device"] = Text(stats.device);
  fields["dtype"] = Text(stats.dtype);
  auto* stages = fields["stages"].mutable_list_value();
  AddStage(stats.load, stages);
  for (const engine::StageStats& stage : stats.result.stages) AddStage(stage, stages);
  auto* steps = fields["step_seconds"].mutable_list_value();
  for (const double seconds : stats.result.step_seconds) *steps->add_values() = Number(seconds);
  fields["first_chunk_seconds"] = Number(stats.result.first_chunk_seconds);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  fields["peak_rss_bytes"] = Number(static_cast<double>(usage.ru_maxrss) * 1024);
  fields["plan"] = Object(convert::FromEngine(stats.result.plan));
  fields["effective_request"] = Object(stats.effective_request);
  std::ofstream file(path);
  file << convert::ToJson(root, convert::JsonLayout::kIndented);
  file.close();
  if (!file) return absl::InternalError(absl::StrCat("cannot write '", path, "'"));
  return absl::OkStatus();
}

}  // namespace kino::render
