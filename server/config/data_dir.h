// The data folder's layout that several processes share: its creation, the worker link's address
// and secret, and the files that tell which addresses were bound. Free functions; each may be
// called from any thread.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/config/config.h"

namespace kino::config {

// Creates the folder (mode 0700) and proves that a file can be written and synced in it.
absl::Status PrepareDataDir(const Config& config);

// The unix socket that workers dial: <data_dir>/run/link.sock, or, where that is too long for a
// socket's name, a folder of this user's own under /tmp named after the data folder. Frontend and
// workers compute the same.
std::string LinkSocketPath(const Config& config);
// "unix:" + LinkSocketPath, as gRPC wants it.
std::string LinkAddress(const Config& config);
// Creates the folder of the socket (mode 0700); PERMISSION_DENIED when it exists and is not this
// user's alone.
absl::Status PrepareLinkFolder(const Config& config);

// The secret that a worker's hello must carry, from <data_dir>/run/link.secret (mode 0600). Ensure
// creates it when it is absent; Read fails with NOT_FOUND then.
absl::StatusOr<std::string> EnsureLinkSecret(const Config& config);
absl::StatusOr<std::string> ReadLinkSecret(const Config& config);

// The address a listener really has, for scripts: <data_dir>/frontend.addr, metrics.addr. Written
// whole or not at all.
absl::Status WriteAddressFile(const Config& config, const std::string& name,
                              const std::string& address);

// Writes `content` to `path` through a temporary file and a rename, so that readers see all or
// nothing, after a power cut too. Once this returns OK, it is durable. An error leaves what was
// there, unless the folder could not be synced: then it is either.
absl::Status WriteFileAtomically(const std::string& path, const std::string& content,
                                 unsigned mode);
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes);

}  // namespace kino::config
