#include "server/frontend/profiles/profiles.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/convert/profile.h"
#include "server/convert/request.h"

namespace kino::frontend {
namespace {

// Prompts of about the same length have about as many tokens: they share a profile.
constexpr size_t kPromptBytes = 64;

std::string KindOf(const std::string& device) { return device.substr(0, device.find(':')); }

void AppendDeterministic(const google::protobuf::Message& message, std::string* out) {
  google::protobuf::io::StringOutputStream stream(out);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
}

// What a profile depends on, besides model and device.
std::string KeyOf(const v1::ProfileQuery& query) {
  v1::GenerateRequest request = query.request();
  const auto shorten = [](std::string* prompt) {
    *prompt = std::to_string((prompt->size() + kPromptBytes - 1) / kPromptBytes);
  };
  if (request.has_prompt()) shorten(request.mutable_prompt());
  if (request.has_negative_prompt()) shorten(request.mutable_negative_prompt());
  request.clear_seed();
  request.clear_fps();
  request.clear_output();
  request.clear_plan();
  std::string key;
  AppendDeterministic(request, &key);
  for (const v1::Plan& variant : query.variants()) {
    absl::StrAppend(&key, "|");
    AppendDeterministic(variant, &key);
  }
  return key;
}

absl::Status Unavailable(const std::string& what) {
  return absl::UnavailableError(absl::StrCat("what the job needs is not known: ", what));
}

}  // namespace

Profiles::Profiles(ProfilesOptions options, Ask ask)
    : options_(std::move(options)), ask_(std::move(ask)) {}

std::shared_ptr<engine::ProfileSource> Profiles::Of(const std::string& model,
                                                    const std::string& device,
                                                    const std::string& tenant,
                                                    absl::Time deadline) {
  class Source final : public engine::ProfileSource {
   public:
    Source(Profiles& profiles, std::string model, std::string device, std::string tenant,
           absl::Time deadline)
        : profiles_(profiles),
          model_(std::move(model)),
          device_(std::move(device)),
          tenant_(std::move(tenant)),
          deadline_(deadline) {}
    absl::StatusOr<engine::RunProfile> Profile(
        const engine::Request& request,
        const std::vector<engine::PhaseVariant>& variants) override {
      return profiles_.Find(model_, device_, tenant_, deadline_, request, variants);
    }

   private:
    Profiles& profiles_;
    const std::string model_, device_, tenant_;
    const absl::Time deadline_;
  };
  return std::make_shared<Source>(*this, model, device, tenant, deadline);
}

absl::StatusOr<engine::RunProfile> Profiles::Find(
    const std::string& model, const std::string& device, const std::string& tenant,
    absl::Time deadline, const engine::Request& request,
    const std::vector<engine::PhaseVariant>& variants) {
  v1::ProfileQuery query;
  query.set_model(model);
  convert::FromEngine(request, query.mutable_request());
  query.mutable_request()->set_model(model);
  for (const engine::PhaseVariant& variant : variants)
    *query.add_variants() = convert::FromEngine(variant);
  const std::string kind = KindOf(device);
  const std::string place_key = absl::StrCat(model, "|", kind);
  const std::string key = absl::StrCat(place_key, "|", KeyOf(query));

  std::shared_ptr<Entry> entry;
  bool is_new = false;
  {
    absl::MutexLock lock(&mutex_);
    if (const auto found = by_key_.find(key); found != by_key_.end()) {
      entry = *found->second;
      if (entry->is_pending && options_.now() > entry->asked + options_.give_up) {
        entry->error = Unavailable("no worker has answered");
        Forget(entry);
        entry = nullptr;
      } else {
        entries_.splice(entries_.begin(), entries_, found->second);
      }
    }
    if (entry == nullptr) {
      if (deadline <= options_.now()) return Unavailable("no worker was asked yet");
      int& pending = pending_[tenant];
      if (pending >= options_.max_pending_per_tenant) {
        return Unavailable(absl::StrCat(pending, " other questions of this tenant are open"));
      }
      ++pending;
      is_new = true;
      entry = std::make_shared<Entry>();
      entry->key = key;
      entry->place_key = place_key;
      entry->tenant = tenant;
      entry->asked = options_.now();
      entry->was_counted = true;
      entries_.push_front(entry);
      by_key_[key] = entries_.begin();
      query.set_without_places(places_.contains(place_key));
    }
  }
  if (is_new) {
    ask_(kind, std::move(query), [this, entry](absl::StatusOr<v1::RunProfile> answer) {
      Answer(entry, std::move(answer));
    });
  }
  absl::MutexLock lock(&mutex_);
  while (entry->is_pending) {
    if (changed_.WaitWithDeadline(&mutex_, deadline) && entry->is_pending)
      return Unavailable("no worker has answered in time");
  }
  if (!entry->error.ok()) return entry->error;
  return entry->profile;
}

void Profiles::Answer(const std::shared_ptr<Entry>& entry, absl::StatusOr<v1::RunProfile> answer) {
  absl::StatusOr<engine::RunProfile> profile = absl::UnknownError("");
  int64_t bytes = 0;
  if (answer.ok()) {
    bytes = static_cast<int64_t>(answer->SpaceUsedLong());
    profile = convert::ToEngine(*answer);
  } else {
    profile = answer.status();
  }
  absl::MutexLock lock(&mutex_);
  if (!entry->is_pending) return;  // given up
  entry->is_pending = false;
  if (profile.ok() && profile->places != nullptr) {
    places_[entry->place_key] = profile->places;
  } else if (profile.ok()) {
    const auto known = places_.find(entry->place_key);
    if (known != places_.end()) profile->places = known->second;
    if (known == places_.end()) profile = absl::InternalError("the worker left the weights out");
  }
  if (profile.ok()) {
    entry->profile = *std::move(profile);
    entry->bytes = bytes;
    bytes_ += bytes;
    if (--pending_[entry->tenant] == 0) pending_.erase(entry->tenant);
    entry->was_counted = false;
    Trim();
  } else {
    // Asked anew the next time.
    entry->error = Unavailable(std::string(profile.status().message()));
    Forget(entry);
  }
  changed_.SignalAll();
}

void Profiles::Forget(const std::shared_ptr<Entry>& entry) {
  entry->is_pending = false;
  if (std::exchange(entry->was_counted, false) && --pending_[entry->tenant] == 0)
    pending_.erase(entry->tenant);
  bytes_ -= std::exchange(entry->bytes, 0);
  if (const auto found = by_key_.find(entry->key);
      found != by_key_.end() && *found->second == entry) {
    entries_.erase(found->second);
    by_key_.erase(found);
  }
}

void Profiles::Trim() {
  while (entries_.size() > options_.max_profiles || bytes_ > options_.max_bytes) {
    const auto oldest = std::find_if(entries_.rbegin(), entries_.rend(),
                                     [](const auto& entry) { return !entry->is_pending; });
    if (oldest == entries_.rend()) return;
    Forget(std::shared_ptr<Entry>(*oldest));
  }
}

size_t Profiles::kept() const {
  absl::MutexLock lock(&mutex_);
  return entries_.size();
}

}  // namespace kino::frontend
