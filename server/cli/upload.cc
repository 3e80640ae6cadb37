#include "server/cli/upload.h"

#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "server/command_line/input.h"
#include "server/command_line/utf8.h"
#include "server/digest/sha256.h"

namespace kino::cli {
namespace {

constexpr size_t kPieceBytes = 1 << 20;
// Of a pipe, which has no size; far above what a server takes by default.
constexpr int64_t kMaxPipeBytes = int64_t{4} << 30;
constexpr size_t kMaxDisplayNameBytes = 256;

// The file from its beginning, by pieces, until `take` has had enough.
template <typename Take>
absl::Status ReadPieces(int fd, const std::string& path, const Take& take) {
  std::string piece(kPieceBytes, '\0');
  for (off_t offset = 0;;) {
    const ssize_t got = pread(fd, piece.data(), kPieceBytes, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return absl::InvalidArgumentError(std::string(
          absl::ErrnoToStatus(errno, absl::StrCat("'", path, "' cannot be read")).message()));
    }
    if (got == 0) return absl::OkStatus();
    offset += got;
    piece.resize(static_cast<size_t>(got));
    if (!take(piece)) return absl::OkStatus();
    piece.resize(kPieceBytes);
  }
}

// A file's name may hold any bytes, a message's text only UTF-8.
std::string DisplayName(const std::string& path) {
  if (path == "-") return "standard input";
  return command_line::TruncateUtf8(
      command_line::ToUtf8(std::filesystem::path(path).filename().string()), kMaxDisplayNameBytes);
}

}  // namespace

absl::StatusOr<v1::Asset> UploadFile(Client& client, const std::string& path) {
  const absl::StatusOr<int> fd = command_line::OpenInputFile(path, kMaxPipeBytes);
  // A local fault, whatever its errno: UNAVAILABLE would mean the server.
  if (!fd.ok()) return absl::InvalidArgumentError(std::string(fd.status().message()));
  const absl::Cleanup close_fd = [&fd] { close(*fd); };
  v1::UploadAssetRequest message;
  digest::Sha256 digest;
  int64_t size_bytes = 0;
  absl::Status read = ReadPieces(*fd, path, [&](const std::string& piece) {
    digest.Update(piece.data(), piece.size());
    size_bytes += static_cast<int64_t>(piece.size());
    return true;
  });
  if (!read.ok()) return read;
  message.mutable_header()->set_size_bytes(size_bytes);
  message.mutable_header()->set_sha256(digest.Hex());
  message.mutable_header()->set_display_name(DisplayName(path));

  auto context = client.UnaryContext();
  v1::Asset asset;
  auto writer = client.videos().UploadAsset(context.get(), &asset);
  if (writer->Write(message)) {
    read = ReadPieces(*fd, path, [&](const std::string& piece) {
      message.set_data(piece);
      return writer->Write(message);
    });
  }
  if (!read.ok()) {
    context->TryCancel();
    writer->Finish();
    return read;
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
