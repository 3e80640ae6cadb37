#include "server/frontend/rpc/submission.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "server/config/effective_plan.h"
#include "server/convert/request.h"
#include "server/convert/status.h"
#include "server/digest/sha256.h"
#include "server/frontend/rpc/errors.h"
#include "server/frontend/rpc/placement.h"
#include "server/frontend/rpc/request_check.h"

namespace kino::frontend {
namespace {

// Of a submission for a worker's word about what the job needs.
constexpr absl::Duration kProfileWait = absl::Milliseconds(250);

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

// Equal for the same request, whatever its request_id: maps are written in the order of their keys.
std::string Fingerprint(const v1::GenerateRequest& request) {
  v1::GenerateRequest plain = request;
  plain.clear_request_id();
  plain.clear_tenant();
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    plain.SerializeToCodedStream(&coded);
  }
  digest::Sha256 sha;
  sha.Update(bytes.data(), bytes.size());
  return sha.Hex();
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
    // The name is a stranger's text.
    return WithErrorInfo(
        absl::NotFoundError(absl::StrCat("no model '", request.model().substr(0, 128),
                                         "'; known: ", context.catalog.Names())),
        "MODEL_NOT_FOUND");
  }
  return entry;
}

// Whether an asset's content fits the condition's kind.
bool Fits(v1::Condition::Kind kind, const std::string& content_type) {
  return absl::StartsWith(content_type, kind == v1::Condition::IMAGE ? "image/" : "video/");
}

absl::StatusOr<scheduler::Asset> KeepBytes(const Context& context, const std::string& tenant,
                                           const std::string& bytes) {
  absl::StatusOr<std::unique_ptr<AssetWriter>> upload = context.files.CreateUpload();
  if (!upload.ok()) return upload.status();
  const absl::Status written = (*upload)->Append(bytes);
  if (!written.ok()) return written;
  digest::Sha256 sha;
  sha.Update(bytes.data(), bytes.size());
  return KeepMedia(context, tenant, **upload, static_cast<int64_t>(bytes.size()), sha.Hex());
}

// Looks assets up, keeps inline bytes as assets, and leaves only ids in the request.
absl::Status ResolveConditions(const Context& context, const std::string& tenant,
                               v1::GenerateRequest& request, std::vector<std::string>& asset_ids) {
  for (int i = 0; i < request.conditions_size(); ++i) {
    v1::Condition& condition = *request.mutable_conditions(i);
    const std::string field = absl::StrCat("conditions[", i, "]");
    absl::StatusOr<scheduler::Asset> asset =
        condition.has_data() ? KeepBytes(context, tenant, condition.data())
                             : context.store.GetAsset(tenant, condition.asset_id());
    if (absl::IsInvalidArgument(asset.status())) {
      return convert::InvalidRequest({{condition.has_data() ? field + ".data" : field + ".asset_id",
                                       std::string(asset.status().message())}});
    }
    if (absl::IsNotFound(asset.status())) {
      return WithErrorInfo(absl::NotFoundError(absl::StrCat(
                               field, ": no asset '", condition.asset_id().substr(0, 64), "'")),
                           "ASSET_NOT_FOUND");
    }
    if (!asset.ok()) return asset.status();
    if (!Fits(condition.kind(), asset->content_type)) {
      return convert::InvalidRequest(
          {{field + ".kind",
            absl::StrCat("expected a file of kind ", v1::Condition::Kind_Name(condition.kind()),
                         ", got ", asset->content_type)}});
    }
    condition.set_asset_id(asset->id);
    if (std::find(asset_ids.begin(), asset_ids.end(), asset->id) == asset_ids.end()) {
      asset_ids.push_back(asset->id);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<scheduler::Asset> KeepMedia(const Context& context, const std::string& tenant,
                                           AssetWriter& upload, int64_t size_bytes,
                                           const std::string& sha256) {
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
                         .create_time = absl::InfinitePast(),
                         .file_name = ""};
  asset.file_name = asset.id;
  const absl::Status kept = context.files.KeepAsset(upload, asset.file_name);
  if (!kept.ok()) return kept;
  absl::StatusOr<scheduler::Asset> stored = context.store.InsertAsset(asset);
  if (!stored.ok()) context.files.RemoveAsset(asset.file_name);
  return stored;
}

absl::StatusOr<EffectiveRequest> ResolveJob(const Context& context,
                                            const v1::GenerateRequest& request) {
  std::vector<engine::FieldViolation> violations;
  CheckKnown(request, "", violations);
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
  engine::ResolvedRequest resolved =
      engine::ResolveRequest(*(*entry)->description, converted.request, context.random.Next());
  violations.insert(violations.end(), resolved.violations.begin(), resolved.violations.end());
  violations = WithoutRepeats(std::move(violations));
  if (!violations.empty()) {
    return WithErrorInfo(convert::InvalidRequest(violations), "INVALID_REQUEST");
  }
  return EffectiveRequest{*entry, std::move(resolved.request)};
}

absl::StatusOr<scheduler::NewJob> PrepareJob(const Context& context, const std::string& tenant,
                                             const v1::GenerateRequest& request) {
  if (!request.tenant().empty() && request.tenant() != tenant) {
    return WithErrorInfo(absl::PermissionDeniedError(absl::StrCat(
                             "tenant: the caller is '", tenant, "' and cannot submit for another")),
                         "TENANT_MISMATCH");
  }
  const absl::StatusOr<EffectiveRequest> resolved = ResolveJob(context, request);
  if (!resolved.ok()) return resolved.status();
  const absl::Status fits = CheckFits(
      *resolved->entry, resolved->request, Targets(context.config.workers, context.link.Memories()),
      {.profiles = context.profiles, .tenant = tenant, .deadline = absl::Now() + kProfileWait});
  if (!fits.ok()) return fits;

  v1::GenerateRequest effective = request;
  convert::FromEngine(resolved->request, &effective);
  effective.set_model(resolved->entry->config.name);
  effective.set_tenant(tenant);
  if (effective.priority() == v1::PRIORITY_UNSPECIFIED) effective.set_priority(v1::NORMAL);
  absl::Duration run_timeout = context.config.limits.run_timeout;
  if (request.has_run_timeout()) {
    run_timeout = std::min(run_timeout, FromProto(request.run_timeout()));
  }
  effective.mutable_run_timeout()->set_seconds(absl::ToInt64Seconds(run_timeout));
  effective.mutable_run_timeout()->set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(run_timeout - absl::Seconds(absl::ToInt64Seconds(run_timeout)))));

  scheduler::NewJob job;
  const absl::Status media = ResolveConditions(context, tenant, effective, job.asset_ids);
  if (!media.ok()) return media;
  job.tenant = tenant;
  job.model = effective.model();
  job.priority = static_cast<scheduler::Priority>(effective.priority());
  job.labels.insert(request.labels().begin(), request.labels().end());
  job.request_fingerprint = Fingerprint(request);
  job.request_id = request.request_id();
  job.server_version = KINO_VERSION;
  job.run_timeout = run_timeout;
  if (request.has_start_timeout()) job.start_timeout = FromProto(request.start_timeout());
  job.request = effective.SerializeAsString();
  return job;
}

}  // namespace kino::frontend
