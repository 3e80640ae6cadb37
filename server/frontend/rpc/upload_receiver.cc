#include "server/frontend/rpc/upload_receiver.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/convert/status.h"
#include "server/frontend/rpc/errors.h"
#include "server/frontend/rpc/request_check.h"
#include "server/frontend/rpc/submission.h"

namespace kino::frontend {
namespace {

constexpr size_t kMaxMessageBytes = 1 << 20;
constexpr size_t kMaxDisplayNameBytes = 256;

bool IsSha256(const std::string& text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

}  // namespace

absl::Status UploadReceiver::Take(const std::string& tenant,
                                  const v1::UploadAssetRequest& message) {
  std::vector<engine::FieldViolation> violations;
  CheckKnown(message, "", violations);
  const absl::Status known = convert::InvalidRequest(WithoutRepeats(std::move(violations)));
  if (!known.ok()) return known;
  return message.has_header() ? TakeHeader(tenant, message.header()) : TakeData(message.data());
}

absl::Status UploadReceiver::TakeHeader(const std::string& tenant,
                                        const v1::UploadAssetRequest::Header& header) {
  if (header_.has_value()) {
    return convert::InvalidRequest({{"header", "expected once, as the first message"}});
  }
  std::vector<engine::FieldViolation> violations;
  if (header.size_bytes() <= 0) {
    violations.push_back(
        {"header.size_bytes", absl::StrCat("expected at least 1, got ", header.size_bytes())});
  }
  if (!IsSha256(header.sha256())) {
    violations.push_back({"header.sha256", "expected 64 lower-case hexadecimal digits"});
  }
  if (header.display_name().size() > kMaxDisplayNameBytes) {
    violations.push_back(
        {"header.display_name", absl::StrCat("expected at most ", kMaxDisplayNameBytes,
                                             " bytes, got ", header.display_name().size())});
  }
  if (!violations.empty()) return convert::InvalidRequest(violations);
  const int64_t limit = context_.config.limits.max_upload_bytes;
  if (header.size_bytes() > limit) {
    return WithErrorInfo(
        absl::ResourceExhaustedError(absl::StrCat("header.size_bytes: this server takes at most ",
                                                  limit, " bytes, got ", header.size_bytes())),
        "UPLOAD_TOO_LARGE");
  }
  absl::StatusOr<DiskBudget::Reservation> room =
      context_.budget.Reserve(tenant, header.size_bytes());
  if (!room.ok()) return room.status();
  room_ = *std::move(room);
  absl::StatusOr<std::unique_ptr<AssetWriter>> file = context_.files.CreateUpload();
  if (!file.ok()) return file.status();
  file_ = *std::move(file);
  header_ = header;
  return absl::OkStatus();
}

absl::Status UploadReceiver::TakeData(const std::string& data) {
  if (!header_.has_value()) {
    return convert::InvalidRequest({{"header", "expected as the first message, got data"}});
  }
  if (data.empty() || data.size() > kMaxMessageBytes) {
    return convert::InvalidRequest({{"data", absl::StrCat("expected 1 to ", kMaxMessageBytes,
                                                          " bytes a message, got ", data.size())}});
  }
  received_ += static_cast<int64_t>(data.size());
  if (received_ > header_->size_bytes()) {
    return convert::InvalidRequest({{"data", absl::StrCat("expected ", header_->size_bytes(),
                                                          " bytes as declared, got more")}});
  }
  sha_.Update(data.data(), data.size());
  return file_->Append(data);
}

std::string UploadReceiver::Awaited() const {
  if (!header_.has_value()) return "the header";
  if (received_ == header_->size_bytes()) return "the end of the stream";
  return absl::StrCat("the rest of the data (", received_, " of ", header_->size_bytes(),
                      " bytes are here)");
}

absl::Status UploadReceiver::CheckComplete() const {
  if (!header_.has_value()) {
    return convert::InvalidRequest(
        {{"header", "expected as the first message, got nothing that parses"}});
  }
  if (received_ != header_->size_bytes()) {
    return convert::InvalidRequest({{"data", absl::StrCat("expected ", header_->size_bytes(),
                                                          " bytes as declared, got ", received_)}});
  }
  const std::string sha256 = sha_.Hex();
  if (sha256 != header_->sha256()) {
    return convert::InvalidRequest(
        {{"header.sha256",
          absl::StrCat("declared ", header_->sha256(), ", received bytes have ", sha256)}});
  }
  return absl::OkStatus();
}

absl::StatusOr<scheduler::Asset> UploadReceiver::Keep(const std::string& tenant) {
  absl::StatusOr<scheduler::Asset> asset =
      KeepMedia(context_, tenant, *file_, received_, header_->sha256());
  if (!absl::IsInvalidArgument(asset.status())) return asset;
  return convert::InvalidRequest({{"data", std::string(asset.status().message())}});
}

}  // namespace kino::frontend
