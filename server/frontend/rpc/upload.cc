#include "server/frontend/rpc/upload.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/convert/status.h"
#include "server/frontend/rpc/errors.h"
#include "server/frontend/rpc/job_view.h"
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

Upload* Upload::Start(const Context& context, absl::StatusOr<std::string> tenant,
                      v1::Asset* response) {
  std::shared_ptr<Upload> owned(new Upload(context, response));
  Upload* upload = owned.get();
  upload->self_ = std::move(owned);
  if (!tenant.ok()) {
    upload->Finish(ToGrpc(tenant.status()));
    return upload;
  }
  upload->tenant_ = *std::move(tenant);
  upload->StartRead(&upload->message_);
  return upload;
}

void Upload::OnReadDone(bool ok) {
  context_.media.Post([self = shared_from_this(), ok] {
    if (ok) return self->Take();
    self->Finish(ToGrpc(self->Complete()));
  });
}

void Upload::OnDone() { std::shared_ptr<Upload> self = std::move(self_); }

void Upload::Take() {
  std::vector<engine::FieldViolation> violations;
  CheckKnown(message_, "", violations);
  absl::Status taken = convert::InvalidRequest(violations);
  if (taken.ok()) {
    taken = message_.has_header() ? TakeHeader(message_.header()) : TakeData(message_.data());
  }
  if (!taken.ok()) return Finish(ToGrpc(taken));
  StartRead(&message_);
}

absl::Status Upload::TakeHeader(const v1::UploadAssetRequest::Header& header) {
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
  absl::StatusOr<std::unique_ptr<AssetWriter>> file = context_.files.CreateUpload();
  if (!file.ok()) return file.status();
  file_ = *std::move(file);
  header_ = header;
  return absl::OkStatus();
}

absl::Status Upload::TakeData(const std::string& data) {
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

absl::Status Upload::Complete() {
  if (!header_.has_value()) {
    return convert::InvalidRequest(
        {{"header", "expected as the first message, got nothing that parses"}});
  }
  if (received_ != header_->size_bytes()) {
    return convert::InvalidRequest({{"data", absl::StrCat("expected ", header_->size_bytes(),
                                                          " bytes as declared, got ", received_)}});
  }
  if (sha_.Hex() != header_->sha256()) {
    return convert::InvalidRequest(
        {{"header.sha256",
          absl::StrCat("declared ", header_->sha256(), ", received bytes have ", sha_.Hex())}});
  }
  const absl::StatusOr<scheduler::Asset> asset =
      KeepMedia(context_, tenant_, *file_, received_, header_->sha256());
  if (absl::IsInvalidArgument(asset.status())) {
    return convert::InvalidRequest({{"data", std::string(asset.status().message())}});
  }
  if (!asset.ok()) return asset.status();
  *response_ = ToProto(*asset);
  return absl::OkStatus();
}

}  // namespace kino::frontend
