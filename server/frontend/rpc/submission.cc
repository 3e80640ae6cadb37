#include "server/frontend/rpc/submission.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <spdlog/spdlog.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "scheduler/fault_point.h"
#include "scheduler/queue/admission.h"
#include "scheduler/status.h"
#include "server/config/effective_plan.h"
#include "server/convert/duration.h"
#include "server/convert/request.h"
#include "server/convert/status.h"
#include "server/convert/trace_context.h"
#include "server/digest/sha256.h"
#include "server/frontend/rpc/deterministic.h"
#include "server/frontend/rpc/errors.h"
#include "server/frontend/rpc/job_work.h"
#include "server/frontend/rpc/placement.h"
#include "server/frontend/rpc/request_check.h"

namespace kino::frontend {
namespace {

// Of a submission for a worker's word about what the job needs.
constexpr absl::Duration kProfileWait = absl::Milliseconds(250);
// No job has a longer one.
constexpr size_t kMaxRequestIdBytes = 128;

// Of the request as the client sent it, inline media and all: equal for the same request, whatever
// its request_id and its trace. Maps are written in the order of their keys. Stored with each job,
// so what goes into it cannot be changed.
std::string Fingerprint(const v1::GenerateRequest& request) {
  v1::GenerateRequest plain = request;
  plain.clear_request_id();
  plain.clear_tenant();
  plain.clear_traceparent();
  return digest::Sha256Of(SerializeDeterministically(plain));
}

// Whether an asset's content fits the condition's kind.
bool Fits(v1::Condition::Kind kind, const std::string& content_type) {
  return absl::StartsWith(content_type, kind == v1::Condition::IMAGE ? "image/" : "video/");
}

absl::StatusOr<scheduler::Asset> KeepBytes(const Context& context, const std::string& tenant,
                                           const std::string& bytes) {
  const absl::StatusOr<DiskBudget::Reservation> room =
      context.budget.Reserve(tenant, static_cast<int64_t>(bytes.size()));
  if (!room.ok()) return room.status();
  absl::StatusOr<std::unique_ptr<AssetWriter>> upload = context.files.CreateUpload();
  if (!upload.ok()) return upload.status();
  const absl::Status written = (*upload)->Append(bytes);
  if (!written.ok()) return written;
  return KeepMedia(context, tenant, **upload, static_cast<int64_t>(bytes.size()),
                   digest::Sha256Of(bytes));
}

bool HasInlineMedia(const v1::GenerateRequest& request) {
  return std::any_of(request.conditions().begin(), request.conditions().end(),
                     [](const v1::Condition& condition) { return condition.has_data(); });
}

absl::Status CheckKind(const v1::Condition& condition, const scheduler::Asset& asset,
                       const std::string& field) {
  if (Fits(condition.kind(), asset.content_type)) return absl::OkStatus();
  return convert::InvalidRequest(
      {{field + ".kind",
        absl::StrCat("expected a file of kind ", v1::Condition::Kind_Name(condition.kind()),
                     ", got ", asset.content_type)}});
}

std::string FieldOf(int condition) { return absl::StrCat("conditions[", condition, "]"); }

// What a submission has come to. Inline media waits in the client's request until it is decoded.
struct Submission {
  const Context& context;
  const Caller caller;
  const v1::GenerateRequest& request;  // the client's
  SubmitDone done;
  scheduler::NewJob job;
  v1::GenerateRequest effective;
  std::vector<std::string> made_assets;  // from inline media
};
using SubmissionPtr = std::unique_ptr<Submission>;

void AddAsset(scheduler::NewJob& job, const std::string& id) {
  if (std::find(job.asset_ids.begin(), job.asset_ids.end(), id) != job.asset_ids.end()) return;
  job.asset_ids.push_back(id);
}

// The assets are there and show what their conditions' kinds say.
absl::Status CheckAssets(const ConditionAssets& assets, Submission& submission) {
  for (int i = 0; i < submission.effective.conditions_size(); ++i) {
    const std::optional<absl::StatusOr<scheduler::Asset>>& asset = assets[static_cast<size_t>(i)];
    if (!asset) continue;
    const v1::Condition& condition = submission.effective.conditions(i);
    if (absl::IsNotFound(asset->status())) {
      return WithErrorInfo(
          absl::NotFoundError(absl::StrCat(FieldOf(i), ": no asset '", condition.asset_id(), "'")),
          "ASSET_NOT_FOUND");
    }
    if (!asset->ok()) return asset->status();
    const absl::Status kind = CheckKind(condition, **asset, FieldOf(i));
    if (!kind.ok()) return kind;
    AddAsset(submission.job, (*asset)->id);
  }
  return absl::OkStatus();
}

ConditionAssets FindAssets(const Context& context, const std::string& tenant,
                           const v1::GenerateRequest& request) {
  ConditionAssets assets;
  for (const v1::Condition& condition : request.conditions()) {
    assets.emplace_back();
    if (condition.has_asset_id())
      assets.back() = context.store.GetAsset(tenant, condition.asset_id());
  }
  return assets;
}

void TellSizes(const ConditionAssets& assets, engine::Request& request) {
  for (size_t i = 0; i < assets.size(); ++i) {
    if (!assets[i] || !assets[i]->ok()) continue;
    const scheduler::Asset& asset = **assets[i];
    request.conditions[i].size = engine::VideoSize{
        .height = asset.height, .width = asset.width, .num_frames = asset.num_frames};
    if (asset.fps > 0) request.conditions[i].fps = asset.fps;
  }
}

// Leaves only ids of assets in the effective request.
absl::Status KeepInlineMedia(Submission& submission) {
  for (int i = 0; i < submission.effective.conditions_size(); ++i) {
    if (!submission.request.conditions(i).has_data()) continue;
    v1::Condition& condition = *submission.effective.mutable_conditions(i);
    const absl::StatusOr<scheduler::Asset> asset = KeepBytes(
        submission.context, submission.caller.tenant, submission.request.conditions(i).data());
    if (absl::IsInvalidArgument(asset.status())) {
      return convert::InvalidRequest(
          {{FieldOf(i) + ".data", std::string(asset.status().message())}});
    }
    if (!asset.ok()) return asset.status();
    submission.made_assets.push_back(asset->id);
    const absl::Status kind = CheckKind(condition, *asset, FieldOf(i));
    if (!kind.ok()) return kind;
    condition.set_asset_id(asset->id);
    AddAsset(submission.job, asset->id);
  }
  return absl::OkStatus();
}

// The job that this request made before. ALREADY_EXISTS: another request made it.
absl::StatusOr<std::optional<scheduler::Job>> FindMade(const Submission& submission) {
  const std::string& request_id = submission.request.request_id();
  if (request_id.empty() || request_id.size() > kMaxRequestIdBytes) return std::nullopt;
  absl::StatusOr<std::optional<scheduler::Job>> found =
      submission.context.store.FindByRequestId(submission.caller.tenant, request_id);
  if (!found.ok() || !found->has_value()) return found;
  if ((*found)->request_fingerprint == submission.job.request_fingerprint) return found;
  return scheduler::WithReason(
      absl::AlreadyExistsError(absl::StrCat(
          "request_id '", request_id, "' was used for another request, job '", (*found)->id, "'")),
      scheduler::kReasonRequestIdReused);
}

// Everything but inline media. `request` is the client's, or names what its media has become.
absl::Status Prepare(const v1::GenerateRequest& request, Submission& submission) {
  const Context& context = submission.context;
  const absl::Status room = context.budget.Check(submission.caller.tenant);
  if (!room.ok()) return room;
  const absl::StatusOr<EffectiveRequest> resolved =
      ResolveJob(context, submission.caller.tenant, request);
  if (!resolved.ok()) return resolved.status();
  const absl::StatusOr<double> flops = CheckFits(
      *resolved->entry, resolved->request, Targets(context.config.workers, context.link.Memories()),
      {.profiles = context.profiles,
       .tenant = submission.caller.tenant,
       .deadline = absl::Now() + kProfileWait});
  if (!flops.ok()) return flops.status();

  v1::GenerateRequest& effective = submission.effective;
  effective = request;
  for (v1::Condition& condition : *effective.mutable_conditions()) {
    if (condition.has_data()) condition.set_asset_id(std::string());
  }
  convert::FromEngine(resolved->request, &effective);
  effective.set_model(resolved->entry->config.name);
  effective.set_tenant(submission.caller.tenant);
  if (effective.traceparent().empty()) effective.set_traceparent(submission.caller.traceparent);
  if (effective.priority() == v1::PRIORITY_UNSPECIFIED) effective.set_priority(v1::NORMAL);
  absl::Duration run_timeout = context.config.limits.run_timeout;
  if (request.has_run_timeout()) {
    run_timeout = std::min(run_timeout, convert::ToDuration(request.run_timeout()));
  }
  convert::SetDuration(run_timeout, effective.mutable_run_timeout());
  // Nothing of a job outlives the job.
  const config::RetentionConfig& retention = context.config.retention;
  absl::Duration result_ttl = retention.results;
  if (request.has_result_ttl()) {
    result_ttl = std::min(convert::ToDuration(request.result_ttl()), retention.jobs);
    submission.job.result_ttl = result_ttl;
  }
  convert::SetDuration(result_ttl, effective.mutable_result_ttl());

  scheduler::NewJob& job = submission.job;
  job.tenant = submission.caller.tenant;
  job.model = effective.model();
  job.priority = static_cast<scheduler::Priority>(effective.priority());
  job.labels.insert(request.labels().begin(), request.labels().end());
  job.request_id = request.request_id();
  job.server_version = KINO_VERSION;
  job.run_timeout = run_timeout;
  job.work = WorkOf(effective, *flops);
  if (request.has_start_timeout()) job.start_timeout = convert::ToDuration(request.start_timeout());
  return CheckAssets(resolved->assets, submission);
}

// Media is not decoded for a queue that has no room. The store looks again when the job enters.
absl::Status CheckRoom(const Submission& submission) {
  const absl::StatusOr<scheduler::QueueLoad> load = submission.context.store.Load();
  if (!load.ok()) return load.status();
  return scheduler::CheckAdmission(
      {.max_queued_jobs = submission.context.config.limits.max_queued_jobs,
       .max_request_bytes = kMaxStoredRequestBytes},
      {.all = load->jobs.at(scheduler::JobState::kQueued)}, submission.job);
}

// Assets of media that no job came to use.
void RemoveMadeAssets(const Submission& submission) {
  for (const std::string& id : submission.made_assets) {
    const absl::StatusOr<std::string> file =
        submission.context.store.DeleteAsset(submission.caller.tenant, id);
    if (file.ok()) {
      submission.context.files.RemoveAsset(*file);
    } else {
      // It goes when it has aged out.
      spdlog::warn("asset {}: left over, cannot be removed now: {}", id,
                   std::string(file.status().message()));
    }
  }
}

// Into the queue, with whatever media has been kept.
void Enter(SubmissionPtr submission) {
  submission->job.request = submission->effective.SerializeAsString();
  absl::StatusOr<scheduler::SubmitResult> result =
      submission->context.store.Submit(submission->job);
  KINO_FAULT_POINT("frontend.submit.stored");
  if (!result.ok() || !result->is_new) RemoveMadeAssets(*submission);
  if (!result.ok()) return submission->done(result.status());
  if (result->is_new) {
    spdlog::info("job {}: submitted, model {}, priority {}{}", result->job.id, result->job.model,
                 scheduler::PriorityName(result->job.priority),
                 convert::TraceForLog(submission->effective));
  }
  submission->done(std::move(result->job));
}

void KeepMediaAndEnter(SubmissionPtr submission) {
  // While it waited for its turn the same request may have made its job.
  absl::StatusOr<std::optional<scheduler::Job>> made = FindMade(*submission);
  if (!made.ok()) return submission->done(made.status());
  if (made->has_value()) return submission->done(**std::move(made));
  const absl::Status room = CheckRoom(*submission);
  if (!room.ok()) return submission->done(room);
  absl::Status kept = KeepInlineMedia(*submission);
  if (kept.ok()) {
    // Its sizes are known now, as those of uploads are from the beginning.
    v1::GenerateRequest request = submission->request;
    for (int i = 0; i < request.conditions_size(); ++i)
      request.mutable_conditions(i)->set_asset_id(submission->effective.conditions(i).asset_id());
    kept = Prepare(request, *submission);
  }
  if (!kept.ok()) {
    RemoveMadeAssets(*submission);
    return submission->done(kept);
  }
  Enter(std::move(submission));
}

}  // namespace

absl::StatusOr<scheduler::Asset> KeepMedia(const Context& context, const std::string& tenant,
                                           AssetWriter& upload, int64_t size_bytes,
                                           const std::string& sha256) {
  // What still waits when the server stops is not begun: decoding takes seconds.
  if (context.hub.is_going_away()) return absl::UnavailableError("the server is shutting down");
  const absl::StatusOr<ProbedMedia> media = context.probe(upload.path());
  if (!media.ok()) return media.status();
  const int64_t frame_pixels = int64_t{media->width} * media->height;
  const config::LimitsConfig& limits = context.config.limits;
  if (frame_pixels > limits.max_image_pixels ||
      frame_pixels * std::max(media->num_frames, 1) > limits.max_video_pixels) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected at most ", limits.max_image_pixels, " pixels a frame and ",
                     limits.max_video_pixels, " in all, got ", media->width, "x", media->height,
                     " and ", media->num_frames, " frames"));
  }
  scheduler::Asset asset{.id = scheduler::MakeId(context.clock.Now(), context.random),
                         .tenant = tenant,
                         .size_bytes = size_bytes,
                         .sha256 = sha256,
                         .content_type = media->content_type,
                         .width = media->width,
                         .height = media->height,
                         .num_frames = media->num_frames,
                         .fps = media->fps,
                         .create_time = absl::InfinitePast(),
                         .file_name = ""};
  asset.file_name = asset.id;
  const absl::Status kept = context.files.KeepAsset(upload, asset.file_name);
  if (!kept.ok()) return kept;
  absl::StatusOr<scheduler::Asset> stored = context.store.InsertAsset(asset);
  if (!stored.ok()) context.files.RemoveAsset(asset.file_name);
  return stored;
}

absl::StatusOr<const CatalogEntry*> FindModel(const Context& context,
                                              const v1::GenerateRequest& request) {
  if (request.model().empty()) {
    if (context.catalog.entries().size() == 1) return &context.catalog.entries().front();
    return convert::InvalidRequest(
        {{"model", absl::StrCat("expected one of: ", context.catalog.Names(), "; got none")}});
  }
  const CatalogEntry* entry = context.catalog.Find(request.model());
  if (entry == nullptr) {
    return WithErrorInfo(absl::NotFoundError(absl::StrCat("no model '", request.model(),
                                                          "'; known: ", context.catalog.Names())),
                         "MODEL_NOT_FOUND");
  }
  return entry;
}

absl::StatusOr<EffectiveRequest> ResolveJob(const Context& context, const std::string& tenant,
                                            const v1::GenerateRequest& request) {
  std::vector<engine::FieldViolation> violations;
  if (!CheckKnown(request, "", violations)) {
    return WithErrorInfo(convert::InvalidRequest(WithoutRepeats(std::move(violations))),
                         "INVALID_REQUEST");
  }
  CheckServerFields(request, context.config.limits, violations);
  convert::EngineRequest converted = convert::ToEngine(request);
  violations.insert(violations.end(), converted.violations.begin(), converted.violations.end());

  const absl::StatusOr<const CatalogEntry*> entry = FindModel(context, request);
  if (!entry.ok()) return entry.status();
  if (!(*entry)->description.ok()) {
    return WithErrorInfo(absl::FailedPreconditionError(absl::StrCat(
                             "model '", (*entry)->config.name,
                             "' cannot run: ", (*entry)->description.status().message())),
                         "MODEL_BROKEN");
  }
  CheckRequestPlan(**entry, converted.request.plan, violations);
  converted.request.plan = config::EffectivePlan((*entry)->config, converted.request.plan);
  ConditionAssets assets = FindAssets(context, tenant, request);
  TellSizes(assets, converted.request);
  engine::ResolvedRequest resolved =
      engine::ResolveRequest(*(*entry)->description, converted.request, context.random.Next());
  violations.insert(violations.end(), resolved.violations.begin(), resolved.violations.end());
  violations = WithoutRepeats(std::move(violations));
  if (!violations.empty()) {
    return WithErrorInfo(convert::InvalidRequest(violations), "INVALID_REQUEST");
  }
  return EffectiveRequest{*entry, std::move(resolved.request), std::move(assets)};
}

void SubmitJob(const Context& context, const Caller& caller, const v1::GenerateRequest& request,
               SubmitDone done) {
  if (!request.tenant().empty() && request.tenant() != caller.tenant) {
    return done(WithErrorInfo(
        absl::PermissionDeniedError(absl::StrCat("tenant: the caller is '", caller.tenant,
                                                 "' and cannot submit for another")),
        "TENANT_MISMATCH"));
  }
  SubmissionPtr submission(new Submission{.context = context,
                                          .caller = caller,
                                          .request = request,
                                          .done = std::move(done),
                                          .job = {},
                                          .effective = {},
                                          .made_assets = {}});
  submission->job.request_fingerprint = Fingerprint(request);
  absl::StatusOr<std::optional<scheduler::Job>> made = FindMade(*submission);
  if (!made.ok()) return submission->done(made.status());
  if (made->has_value()) return submission->done(**std::move(made));
  const absl::Status prepared = Prepare(request, *submission);
  if (!prepared.ok()) return submission->done(prepared);
  if (!HasInlineMedia(request)) return Enter(std::move(submission));
  const std::string line = caller.line;
  Submission& waiting = *submission;
  Executor::Task task = [submission = std::move(submission)]() mutable {
    KeepMediaAndEnter(std::move(submission));
  };
  if (context.media.TryPost(line, task)) return;
  waiting.done(ServerBusy("files wait to be decoded"));
}

}  // namespace kino::frontend
