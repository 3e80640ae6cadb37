#include "server/cli/upload.h"

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "server/digest/sha256.h"

namespace kino::cli {
namespace {

constexpr size_t kPieceBytes = 1 << 20;

}  // namespace

absl::StatusOr<v1::Asset> UploadFile(Client& client, const std::string& path) {
  auto digest = digest::DigestFile(path);
  if (!digest.ok()) {
    // A local fault, whatever its errno: UNAVAILABLE would mean the server.
    return absl::InvalidArgumentError(std::string(digest.status().message()));
  }
  auto context = client.UnaryContext();
  v1::Asset asset;
  auto writer = client.videos().UploadAsset(context.get(), &asset);
  v1::UploadAssetRequest message;
  message.mutable_header()->set_size_bytes(digest->size_bytes);
  message.mutable_header()->set_sha256(digest->sha256);
  message.mutable_header()->set_display_name(std::filesystem::path(path).filename().string());
  bool is_open = writer->Write(message);
  std::ifstream file(path, std::ios::binary);
  std::string piece(kPieceBytes, '\0');
  while (is_open && (file.read(piece.data(), kPieceBytes), file.gcount() > 0)) {
    message.set_data(piece.substr(0, static_cast<size_t>(file.gcount())));
    is_open = writer->Write(message);
  }
  writer->WritesDone();
  if (absl::Status status = ToStatus(writer->Finish()); !status.ok()) return status;
  return asset;
}

absl::Status UploadConditions(Client& client, RequestInput* input) {
  const int first = input->request.conditions_size() - static_cast<int>(input->files.size());
  for (size_t i = 0; i < input->files.size(); ++i) {
    auto asset = UploadFile(client, input->files[i].path);
    if (!asset.ok()) return asset.status();
    input->request.mutable_conditions(first + static_cast<int>(i))->set_asset_id(asset->id());
  }
  return absl::OkStatus();
}

}  // namespace kino::cli
