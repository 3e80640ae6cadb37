#include "server/frontend/rpc/video_service.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/convert/status.h"
#include "server/frontend/rpc/download.h"
#include "server/frontend/rpc/job_view.h"
#include "server/frontend/rpc/submission.h"
#include "server/frontend/rpc/unary.h"
#include "server/frontend/rpc/upload.h"
#include "server/frontend/rpc/watcher.h"

namespace kino::frontend {
namespace {

constexpr int kDefaultPageSize = 100;
constexpr int kMaxPageSize = 1000;
// Below the 4 MiB that clients take by default.
constexpr size_t kMaxPageBytes = 3 << 20;

// Jobs ahead, filled into those that are queued.
void FillQueuePositions(const Context& context, const std::vector<v1::Job*>& jobs) {
  std::vector<std::string> queued;
  for (const v1::Job* job : jobs) {
    if (job->state() == v1::QUEUED) queued.push_back(job->id());
  }
  if (queued.empty()) return;
  const auto positions = context.store.QueuePositions(queued);
  if (!positions.ok()) return;
  for (v1::Job* job : jobs) {
    const auto found = positions->find(job->id());
    if (found != positions->end()) job->set_queue_position(static_cast<int32_t>(found->second));
  }
}

absl::Status Submit(const Context& context, const std::string& tenant,
                    const v1::GenerateRequest& request, v1::Job* response) {
  absl::StatusOr<scheduler::NewJob> job = PrepareJob(context, tenant, request);
  if (!job.ok()) return job.status();
  const absl::StatusOr<scheduler::SubmitResult> result = context.store.Submit(*std::move(job));
  if (!result.ok()) return result.status();
  if (result->is_new) {
    spdlog::info("job {}: submitted, model {}, priority {}", result->job.id, result->job.model,
                 scheduler::PriorityName(result->job.priority));
  }
  *response = ToProto(result->job);
  return absl::OkStatus();
}

absl::Status List(const Context& context, const std::string& tenant,
                  const v1::ListJobsRequest& request, v1::ListJobsResponse* response) {
  if (request.page_size() < 0 || request.page_size() > kMaxPageSize) {
    return convert::InvalidRequest({{"page_size", absl::StrCat("expected 0 to ", kMaxPageSize,
                                                               ", got ", request.page_size())}});
  }
  scheduler::JobFilter filter{
      .tenant = tenant, .states = {}, .model = request.model(), .labels = {}};
  for (int i = 0; i < request.states_size(); ++i) {
    if (request.states(i) == v1::JOB_STATE_UNSPECIFIED) {
      return convert::InvalidRequest({{absl::StrCat("states[", i, "]"), "expected a state"}});
    }
    filter.states.push_back(static_cast<scheduler::JobState>(request.states(i)));
  }
  filter.labels.insert(request.labels().begin(), request.labels().end());
  int page_size = request.page_size() == 0 ? kDefaultPageSize : request.page_size();
  absl::StatusOr<scheduler::JobPage> page;
  // Long prompts make a long page: then it holds fewer jobs.
  for (;; page_size /= 2) {
    page = context.store.List(filter, page_size, request.page_token());
    if (!page.ok()) return page.status();
    size_t bytes = 0;
    for (const scheduler::Job& job : page->jobs) bytes += job.request.size() + job.stats.size();
    if (bytes <= kMaxPageBytes || page_size == 1) break;
  }
  std::vector<v1::Job*> jobs;
  for (const scheduler::Job& job : page->jobs) {
    jobs.push_back(response->add_jobs());
    *jobs.back() = ToProto(job);
  }
  FillQueuePositions(context, jobs);
  response->set_next_page_token(page->next_page_token);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> TenantOf(const Context& context,
                                     const grpc::CallbackServerContext& call) {
  const auto& metadata = call.client_metadata();
  const auto found = metadata.find("authorization");
  if (found == metadata.end()) return context.tokens.Authenticate("");
  return context.tokens.Authenticate({found->second.data(), found->second.size()});
}

grpc::ServerWriteReactor<v1::JobEvent>* VideoService::Generate(grpc::CallbackServerContext* call,
                                                               const v1::GenerateRequest* request) {
  absl::StatusOr<std::string> tenant = TenantOf(context_, *call);
  if (!tenant.ok()) return Watcher::Refuse(context_, tenant.status());
  return Watcher::Generate(context_, *std::move(tenant), *request);
}

grpc::ServerUnaryReactor* VideoService::SubmitJob(grpc::CallbackServerContext* call,
                                                  const v1::SubmitJobRequest* request,
                                                  v1::Job* response) {
  const auto& conditions = request->request().conditions();
  const bool has_media = std::any_of(conditions.begin(), conditions.end(),
                                     [](const v1::Condition& c) { return c.has_data(); });
  return ServeUnary(context_, has_media ? context_.media : context_.rpc, call, request,
                    [this, request, response](const std::string& tenant) {
                      return Submit(context_, tenant, request->request(), response);
                    });
}

grpc::ServerUnaryReactor* VideoService::GetJob(grpc::CallbackServerContext* call,
                                               const v1::GetJobRequest* request,
                                               v1::Job* response) {
  return ServeUnary(context_, context_.rpc, call, request,
                    [this, request, response](const std::string& tenant) -> absl::Status {
                      const auto job = context_.store.Get(tenant, request->id());
                      if (!job.ok()) return job.status();
                      *response = ToProto(*job);
                      FillQueuePositions(context_, {response});
                      return absl::OkStatus();
                    });
}

grpc::ServerUnaryReactor* VideoService::ListJobs(grpc::CallbackServerContext* call,
                                                 const v1::ListJobsRequest* request,
                                                 v1::ListJobsResponse* response) {
  return ServeUnary(context_, context_.rpc, call, request,
                    [this, request, response](const std::string& tenant) {
                      return List(context_, tenant, *request, response);
                    });
}

grpc::ServerUnaryReactor* VideoService::CancelJob(grpc::CallbackServerContext* call,
                                                  const v1::CancelJobRequest* request,
                                                  v1::Job* response) {
  return ServeUnary(context_, context_.rpc, call, request,
                    [this, request, response](const std::string& tenant) -> absl::Status {
                      const auto job = context_.store.Cancel(tenant, request->id());
                      if (!job.ok()) return job.status();
                      if (job->state == scheduler::JobState::kRunning) {
                        context_.link.CancelRunning(job->id);
                      }
                      *response = ToProto(*job);
                      return absl::OkStatus();
                    });
}

grpc::ServerUnaryReactor* VideoService::DeleteJob(grpc::CallbackServerContext* call,
                                                  const v1::DeleteJobRequest* request,
                                                  v1::DeleteJobResponse* response) {
  (void)response;
  return ServeUnary(context_, context_.rpc, call, request,
                    [this, request](const std::string& tenant) -> absl::Status {
                      const auto file = context_.store.Delete(tenant, request->id());
                      if (!file.ok()) return file.status();
                      if (!file->empty()) context_.files.RemoveVideo(*file);
                      return absl::OkStatus();
                    });
}

grpc::ServerWriteReactor<v1::JobEvent>* VideoService::WatchJob(grpc::CallbackServerContext* call,
                                                               const v1::WatchJobRequest* request) {
  absl::StatusOr<std::string> tenant = TenantOf(context_, *call);
  if (!tenant.ok()) return Watcher::Refuse(context_, tenant.status());
  return Watcher::Watch(context_, *std::move(tenant), *request);
}

grpc::ServerWriteReactor<v1::DownloadVideoResponse>* VideoService::DownloadVideo(
    grpc::CallbackServerContext* call, const v1::DownloadVideoRequest* request) {
  return Download::Start(context_, TenantOf(context_, *call), *request);
}

grpc::ServerReadReactor<v1::UploadAssetRequest>* VideoService::UploadAsset(
    grpc::CallbackServerContext* call, v1::Asset* response) {
  return Upload::Start(context_, TenantOf(context_, *call), response);
}

}  // namespace kino::frontend
