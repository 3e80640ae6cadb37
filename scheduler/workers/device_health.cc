#include "scheduler/workers/device_health.h"

#include <algorithm>
#include <set>

namespace kino::scheduler {

std::vector<AttemptRef> DeviceHealth::Crashed(const std::string& device_name,
                                              const AttemptRef& ref) {
  const absl::Duration now = clock_.Monotonic();
  Device& device = devices_[device_name];
  if (device.is_out) return {ref};
  std::erase_if(device.crashes,
                [&](const Crash& crash) { return now - crash.time > options_.window; });
  device.crashes.push_back({.time = now, .ref = ref});
  std::set<std::string> jobs;
  for (const Crash& crash : device.crashes) jobs.insert(crash.ref.job_id);
  if (static_cast<int>(jobs.size()) < options_.jobs) return {};
  TakeOut(device_name);
  device.next_check = now + device.pause;
  std::vector<AttemptRef> its_own;
  for (const Crash& crash : device.crashes) its_own.push_back(crash.ref);
  device.crashes.clear();
  return its_own;
}

void DeviceHealth::TakeOut(const std::string& device_name) {
  Device& device = devices_[device_name];
  device.is_out = true;
  device.pause = options_.min_pause;
  device.next_check = clock_.Monotonic();
}

bool DeviceHealth::IsOut(const std::string& device) const {
  const auto found = devices_.find(device);
  return found != devices_.end() && found->second.is_out;
}

std::vector<std::string> DeviceHealth::Out() const {
  std::vector<std::string> out;
  for (const auto& [name, device] : devices_) {
    if (device.is_out) out.push_back(name);
  }
  return out;
}

bool DeviceHealth::TakeCheck(const std::string& device_name) {
  const auto found = devices_.find(device_name);
  if (found == devices_.end()) return false;
  Device& device = found->second;
  if (!device.is_out || device.is_being_checked || clock_.Monotonic() < device.next_check)
    return false;
  device.is_being_checked = true;
  device.check_begin = clock_.Monotonic();
  return true;
}

absl::Duration DeviceHealth::CheckTime(const std::string& device_name) const {
  const auto found = devices_.find(device_name);
  if (found == devices_.end() || !found->second.is_being_checked) return absl::ZeroDuration();
  return clock_.Monotonic() - found->second.check_begin;
}

void DeviceHealth::CheckFailed(const std::string& device_name) {
  Device& device = devices_[device_name];
  device.is_being_checked = false;
  device.pause = std::min(device.pause * 2, options_.max_pause);
  device.next_check = clock_.Monotonic() + device.pause;
}

void DeviceHealth::CheckPassed(const std::string& device_name) { devices_.erase(device_name); }

}  // namespace kino::scheduler
