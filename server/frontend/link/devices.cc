#include "server/frontend/link/devices.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/config/data_dir.h"

namespace kino::frontend {
namespace {

constexpr size_t kMaxFileBytes = size_t{64} << 10;
constexpr absl::Duration kForgiveAgain = absl::Seconds(1);

}  // namespace

absl::Status Devices::Start() {
  const absl::StatusOr<std::string> text = config::ReadSmallFile(path_, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  if (!text.ok()) return text.status();
  const std::vector<std::string> devices = absl::StrSplit(*text, '\n', absl::SkipEmpty());
  for (const std::string& device : devices) {
    health_.TakeOut(device);
    parts_.registry.SetOut(device, true);
    spdlog::warn("device {}: was out of service when the last frontend ended", device);
  }
  return absl::OkStatus();
}

void Devices::OnCrash(const std::string& device, const scheduler::AttemptRef& ref) {
  const bool was_out = health_.IsOut(device);
  const std::vector<scheduler::AttemptRef> its_own = health_.Crashed(device, ref);
  if (its_own.empty()) return;
  if (!was_out) {
    spdlog::error("device {}: taken out of service, {} attempts of different jobs crashed on it",
                  device, its_own.size());
    parts_.registry.SetOut(device, true);
    Save();
  }
  Forgive(its_own);
}

void Devices::Forgive(const std::vector<scheduler::AttemptRef>& attempts) {
  parts_.store.ForgiveCrashes(
      attempts, [this, attempts, post = parts_.post](const absl::StatusOr<int>& forgiven) {
        if (forgiven.ok()) return;
        spdlog::error("crashes of a device that is out could not be taken back yet: {}",
                      forgiven.status().ToString());
        post([this, attempts] {
          unforgiven_.insert(unforgiven_.end(), attempts.begin(), attempts.end());
          forgive_again_ = parts_.clock.Monotonic() + kForgiveAgain;
        });
      });
}

void Devices::Tick() {
  if (!unforgiven_.empty() && parts_.clock.Monotonic() >= forgive_again_)
    Forgive(std::exchange(unforgiven_, {}));
  for (const std::string& device : health_.Out()) {
    const auto peer = std::find_if(parts_.peers.all().begin(), parts_.peers.all().end(),
                                   [&](const auto& each) { return each.second.device == device; });
    if (peer != parts_.peers.all().end()) Check(device, peer->second);
  }
}

void Devices::Check(const std::string& device, const Peer& peer) {
  if (health_.CheckTime(device) > check_timeout_) {
    const std::vector<scheduler::WorkerSnapshot> workers = parts_.registry.Snapshot();
    const bool is_busy = std::any_of(workers.begin(), workers.end(), [&](const auto& worker) {
      return worker.name == peer.name && !worker.held.empty();
    });
    if (is_busy) return;
    spdlog::error("device {}: worker {} does not end its check", device, peer.name);
    health_.CheckFailed(device);
    parts_.kill(peer.name);
    return;
  }
  if (!health_.TakeCheck(device)) return;
  parts_.commands.CheckDevice(peer, [this, device](const absl::Status& status) {
    if (!status.ok()) {
      spdlog::warn("device {}: still out of service: {}", device, std::string(status.message()));
      return health_.CheckFailed(device);
    }
    spdlog::info("device {}: works again", device);
    health_.CheckPassed(device);
    parts_.registry.SetOut(device, false);
    Save();
    parts_.on_trusted();
  });
}

void Devices::Save() {
  parts_.io.Post([path = path_, text = absl::StrJoin(health_.Out(), "\n")] {
    const absl::Status written = config::WriteFileAtomically(path, text, 0600);
    if (!written.ok())
      spdlog::error("which devices are out cannot be noted: {}", std::string(written.message()));
  });
}

}  // namespace kino::frontend
