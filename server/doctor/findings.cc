#include "server/doctor/findings.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace kino::doctor {
namespace {

// The CUDA that LibTorch's wheel is built for (scripts/requirements.txt).
constexpr int kNeededCuda = 13000;
constexpr int64_t kGiB = int64_t{1} << 30;
constexpr int64_t kLittleMemory = 8 * kGiB;
constexpr int64_t kFewFiles = 16384;
constexpr absl::Duration kSlowSync = absl::Milliseconds(100);
constexpr absl::Duration kCertificateWarning = absl::Hours(14 * 24);

std::string Gib(int64_t bytes) {
  return absl::StrFormat("%.1f GiB", static_cast<double>(bytes) / static_cast<double>(kGiB));
}

std::string CudaName(int cuda) { return absl::StrCat(cuda / 1000, ".", cuda % 1000 / 10); }

bool WantsGpu(const config::Config* config) {
  return config != nullptr &&
         std::any_of(config->workers.begin(), config->workers.end(),
                     [](const auto& worker) { return absl::StartsWith(worker.device, "cuda"); });
}

void JudgeGpus(const Driver& driver, bool is_wanted, std::vector<Finding>& findings) {
  if (driver.version.empty()) {
    findings.push_back(
        is_wanted ? Finding{"driver", Verdict::kFailure, "there is no NVIDIA driver",
                            "install one for CUDA 13.0 or newer, or give the workers device: cpu"}
                  : Finding{"driver", Verdict::kOk, "no NVIDIA driver: workers run on the CPU"});
    return;
  }
  const std::string name =
      absl::StrCat("NVIDIA ", driver.version, ", CUDA ", CudaName(driver.cuda));
  if (!driver.problem.empty()) {
    findings.push_back({"driver", Verdict::kFailure, absl::StrCat(name, ": ", driver.problem),
                        "nvidia-smi and the kernel's log tell more"});
  } else if (driver.cuda < kNeededCuda) {
    findings.push_back({"driver", Verdict::kFailure, name,
                        absl::StrCat("install a driver for CUDA ", CudaName(kNeededCuda),
                                     " or newer: LibTorch is built for it")});
  } else {
    findings.push_back({"driver", Verdict::kOk, name});
  }
  for (size_t i = 0; i < driver.gpus.size(); ++i) {
    const Gpu& gpu = driver.gpus[i];
    // The driver itself takes some.
    const bool is_used = gpu.free_bytes < gpu.memory_bytes - gpu.memory_bytes / 10;
    findings.push_back(
        {absl::StrCat("cuda:", i), is_used ? Verdict::kWarning : Verdict::kOk,
         absl::StrCat(gpu.name, ", ", Gib(gpu.memory_bytes), ", ", Gib(gpu.free_bytes), " free"),
         is_used ? "something uses it: Kino's own workers, or a process that nvidia-smi names"
                 : ""});
  }
}

void JudgeMachine(const NodeFacts& facts, std::vector<Finding>& findings) {
  const bool is_little = facts.memory_bytes < kLittleMemory;
  findings.push_back(
      {"machine", is_little ? Verdict::kWarning : Verdict::kOk,
       absl::StrCat(facts.cores, facts.cores == 1 ? " core, " : " cores, ", Gib(facts.memory_bytes),
                    " of memory may be used"),
       is_little
           ? "kino-render plan tells what a model needs; weights_home: file keeps weights out "
             "of memory"
           : ""});
  if (facts.open_files > 0 && facts.open_files < kFewFiles) {
    findings.push_back({"open files", Verdict::kWarning,
                        absl::StrCat("a process may open ", facts.open_files),
                        "each connection takes two: raise the limit (ulimit -Hn, LimitNOFILE=)"});
  } else {
    findings.push_back({"open files", Verdict::kOk,
                        facts.open_files == 0
                            ? std::string("no limit")
                            : absl::StrCat("a process may open ", facts.open_files)});
  }
}

void JudgeFolder(const DataFolder& data, int64_t min_free, std::vector<Finding>& findings) {
  Finding folder{"data folder", Verdict::kOk, data.path};
  if (!data.exists) absl::StrAppend(&folder.found, " will be made");
  if (!data.problem.empty()) {
    folder = {"data folder", Verdict::kFailure, data.problem,
              "give it to the user that Kino runs as"};
  } else if (data.exists && !data.is_own) {
    folder = {"data folder", Verdict::kFailure, absl::StrCat(data.path, " is another user's"),
              "give it to the user that Kino runs as, or run this command as that user"};
  } else if (data.exists && (data.mode & 077) != 0) {
    folder = {"data folder", Verdict::kWarning,
              absl::StrFormat("%s has mode %o: others may read prompts", data.path, data.mode),
              absl::StrCat("chmod 700 ", data.path)};
  } else if (!data.file_system.empty()) {
    const bool is_network = data.file_system == "nfs";
    folder = {
        "data folder", Verdict::kWarning, absl::StrCat(data.path, " is on ", data.file_system),
        is_network ? "put it on a local disk: the job store locks and syncs its file"
                   : "put it on a disk: what is there goes with the machine or the container"};
  }
  findings.push_back(std::move(folder));
  const bool is_full = data.free_bytes < min_free;
  findings.push_back({"disk", is_full ? Verdict::kFailure : Verdict::kOk,
                      absl::StrCat(Gib(data.free_bytes), " free"),
                      is_full ? absl::StrCat("below limits.min_free_disk (", Gib(min_free),
                                             ") nothing is taken: make room, or lower it")
                              : ""});
  if (!data.sync) return;
  const bool is_slow = *data.sync > kSlowSync;
  findings.push_back(
      {"fsync", is_slow ? Verdict::kWarning : Verdict::kOk,
       absl::StrFormat("%.1f ms", absl::ToDoubleMilliseconds(*data.sync)),
       is_slow ? "every submission waits for one: a faster disk, or less beside it" : ""});
}

void JudgeListener(const Listener& listener, std::vector<Finding>& findings) {
  if (listener.problem.empty()) {
    findings.push_back({listener.key, Verdict::kOk, listener.address + " is free"});
  } else if (listener.is_running) {
    findings.push_back(
        {listener.key, Verdict::kOk, listener.address + " is taken, it seems by this very server"});
  } else {
    findings.push_back({listener.key, Verdict::kFailure, listener.problem,
                        "stop what listens there (ss -ltnp tells), or take another address"});
  }
}

void JudgeAccess(const NodeFacts& facts, const config::Config& config,
                 std::vector<Finding>& findings) {
  if (facts.has_certificate) {
    const std::string end = absl::FormatTime(facts.certificate_end, absl::UTCTimeZone());
    Finding certificate{"certificate", Verdict::kOk, "ends at " + end};
    if (!facts.certificate_problem.empty()) {
      certificate = {"certificate", Verdict::kFailure, facts.certificate_problem,
                     "listen.tls.certificate and key have to be a pair in PEM, valid now"};
    } else if (facts.certificate_end < facts.now) {
      certificate = {"certificate", Verdict::kFailure, "it ended at " + end,
                     "put a new one in its place (docs/operations.md)"};
    } else if (facts.certificate_end < facts.now + kCertificateWarning) {
      certificate = {"certificate", Verdict::kWarning, "it ends at " + end,
                     "put a new one in its place (docs/operations.md)"};
    }
    findings.push_back(std::move(certificate));
  }
  if (!facts.credentials_problem.empty()) {
    findings.push_back({"callers", Verdict::kFailure, facts.credentials_problem,
                        "docs/operations.md, \"Who may call\", shows such a file"});
  } else {
    findings.push_back({"callers", Verdict::kOk,
                        config.auth.required() ? "known by tokens or certificates"
                                               : "everybody who reaches the address may call"});
  }
}

}  // namespace

const char* VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kWarning:
      return "warning";
    case Verdict::kFailure:
      return "failure";
  }
  return "";
}

std::vector<Finding> Judge(const NodeFacts& facts, const config::Config* config) {
  std::vector<Finding> findings;
  JudgeGpus(facts.driver, WantsGpu(config), findings);
  JudgeMachine(facts, findings);
  if (config == nullptr) return findings;
  if (facts.data) JudgeFolder(*facts.data, config->limits.min_free_disk_bytes, findings);
  for (const Listener& listener : facts.listeners) JudgeListener(listener, findings);
  JudgeAccess(facts, *config, findings);
  for (const Model& model : facts.models) {
    findings.push_back(
        model.problem.empty()
            ? Finding{"model " + model.name, Verdict::kOk, model.found}
            : Finding{"model " + model.name, Verdict::kFailure, model.problem,
                      "its jobs are refused: config/models tells how each is downloaded"});
  }
  if (facts.models.empty()) {
    findings.push_back({"models", Verdict::kWarning, "none is configured",
                        "config/models has an entry for each published one"});
  }
  return findings;
}

std::string AsText(const std::vector<Finding>& findings) {
  size_t width = 0;
  int failures = 0, warnings = 0;
  for (const Finding& finding : findings) width = std::max(width, finding.name.size());
  std::string text;
  for (const Finding& finding : findings) {
    absl::StrAppendFormat(&text, "%-7s  %-*s  %s\n", VerdictName(finding.verdict),
                          static_cast<int>(width), finding.name, finding.found);
    if (!finding.advice.empty())
      absl::StrAppendFormat(&text, "         %*s  do: %s\n", static_cast<int>(width), "",
                            finding.advice);
    failures += finding.verdict == Verdict::kFailure ? 1 : 0;
    warnings += finding.verdict == Verdict::kWarning ? 1 : 0;
  }
  absl::StrAppend(&text, failures, failures == 1 ? " failure, " : " failures, ", warnings,
                  warnings == 1 ? " warning\n" : " warnings\n");
  return text;
}

}  // namespace kino::doctor
