#include "server/convert/json.h"

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/json_util.h"
#include "server/command_line/utf8.h"

namespace kino::convert {

absl::StatusOr<v1::GenerateRequest> FromJson(const std::string& text) {
  const size_t invalid = command_line::FindInvalidUtf8(text);
  if (invalid != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "not the JSON form of kino.v1.GenerateRequest: byte ", invalid, " is no UTF-8"));
  }
  v1::GenerateRequest request;
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = false;
  const auto status = google::protobuf::util::JsonStringToMessage(text, &request, options);
  if (!status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("not the JSON form of kino.v1.GenerateRequest: ",
                     std::string(status.message().data(), status.message().size())));
  }
  return request;
}

std::string ToJson(const google::protobuf::Message& message, JsonLayout layout) {
  std::string out;
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.add_whitespace = layout == JsonLayout::kIndented;
  // Fails only for an Any of an unknown type; such a message is shown in protobuf's text form
  // instead.
  if (!google::protobuf::util::MessageToJsonString(message, &out, options).ok()) {
    out = message.ShortDebugString();
  }
  return out;
}

}  // namespace kino::convert
