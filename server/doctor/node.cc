#include "server/doctor/node.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/core/machine.h"
#include "engine/describe/describe.h"
#include "server/config/effective_plan.h"
#include "server/frontend/acceptor/acceptor.h"
#include "server/frontend/auth/credentials.h"
#include "server/frontend/tls/certificate.h"

namespace kino::doctor {
namespace {

namespace fs = std::filesystem;

constexpr int kSyncs = 21;

std::string KindOf(int64_t magic) {
  switch (magic) {
    case NFS_SUPER_MAGIC:
      return "nfs";
    case TMPFS_MAGIC:
      return "tmpfs";
    case OVERLAYFS_SUPER_MAGIC:
      return "overlay";
    default:
      return "";
  }
}

std::optional<absl::Duration> MeasureSync(const std::string& folder) {
  std::string name = folder + "/.kino-doctor-XXXXXX";
  const int fd = mkstemp(name.data());
  if (fd < 0) return std::nullopt;
  unlink(name.c_str());
  std::vector<absl::Duration> times;
  const std::array<char, 4096> page{};
  bool is_good = true;
  for (int i = 0; is_good && i < kSyncs; ++i) {
    const absl::Time begun = absl::Now();
    is_good = write(fd, page.data(), page.size()) == static_cast<ssize_t>(page.size()) &&
              fdatasync(fd) == 0;
    times.push_back(absl::Now() - begun);
  }
  close(fd);
  if (!is_good) return std::nullopt;
  std::nth_element(times.begin(), times.begin() + kSyncs / 2, times.end());
  return times[kSyncs / 2];
}

DataFolder LookAtFolder(const std::string& path) {
  DataFolder data{.path = path};
  std::error_code error;
  data.exists = fs::is_directory(path, error);
  // Of one that is not there yet, the nearest one above is what it will be made in.
  fs::path there = path;
  while (!fs::is_directory(there, error) && there.has_relative_path()) there = there.parent_path();
  if (access(there.c_str(), W_OK | X_OK) != 0)
    data.problem = absl::StrCat("'", there.string(), "': ", std::strerror(errno));
  struct stat info {};
  if (data.exists && stat(path.c_str(), &info) == 0) {
    data.mode = info.st_mode & 0777;
    data.is_own = info.st_uid == geteuid();
  }
  struct statfs disk {};
  if (statfs(there.c_str(), &disk) == 0) {
    data.free_bytes = static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_bsize);
    data.file_system = KindOf(static_cast<int64_t>(disk.f_type));
  }
  if (data.exists && data.problem.empty()) data.sync = MeasureSync(path);
  return data;
}

Listener LookAtListener(const std::string& key, const std::string& address,
                        const std::string& written) {
  Listener listener{.key = key, .address = address};
  const auto acceptor = frontend::Acceptor::ListenTcp(address, {});
  if (!acceptor.ok()) listener.problem = std::string(acceptor.status().message());
  std::error_code error;
  listener.is_running = fs::exists(written, error);
  return listener;
}

Model LookAtModel(const config::ModelConfig& model) {
  Model fact{.name = model.name};
  const absl::StatusOr<engine::ModelDescription> description =
      engine::DescribeModel(model.folder, model.original_files, model.variant);
  const absl::Status status =
      description.ok() ? config::CheckModelPlan(model, *description) : description.status();
  if (status.ok()) {
    fact.found = absl::StrCat(description->family, " (", description->pipeline_class, ")");
  } else {
    fact.problem = std::string(status.message());
  }
  return fact;
}

}  // namespace

NodeFacts LookAtNode(const config::Config* config) {
  NodeFacts facts{.now = absl::Now(),
                  .driver = AskNvml(),
                  .cores = engine::UsableCores(),
                  .memory_bytes = engine::UsableMemoryBytes()};
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_max != RLIM_INFINITY)
    facts.open_files = static_cast<int64_t>(files.rlim_max);
  if (config == nullptr) return facts;
  facts.data = LookAtFolder(config->data_dir);
  facts.listeners = {
      LookAtListener("listen.address", config->listen.address, config->data_dir + "/frontend.addr"),
      LookAtListener("metrics.address", config->metrics.address,
                     config->data_dir + "/metrics.addr")};
  for (const config::ModelConfig& model : config->models)
    facts.models.push_back(LookAtModel(model));
  facts.has_certificate = config->listen.tls.is_on();
  if (facts.has_certificate) {
    const auto certificate = frontend::ReadCertificate(config->listen.tls);
    if (certificate.ok()) {
      facts.certificate_end = certificate->not_after;
      if (facts.now < certificate->not_before)
        facts.certificate_problem = absl::StrCat(
            "it begins at ", absl::FormatTime(certificate->not_before, absl::UTCTimeZone()));
    } else {
      facts.certificate_problem = std::string(certificate.status().message());
    }
  }
  const auto credentials = frontend::Credentials::Load(config->auth);
  if (!credentials.ok()) facts.credentials_problem = std::string(credentials.status().message());
  return facts;
}

}  // namespace kino::doctor
