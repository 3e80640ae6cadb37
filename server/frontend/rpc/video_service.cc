#include "server/frontend/rpc/video_service.h"

#include <utility>

#include "server/frontend/rpc/download.h"
#include "server/frontend/rpc/grpc_call.h"
#include "server/frontend/rpc/job_view.h"
#include "server/frontend/rpc/jobs.h"
#include "server/frontend/rpc/submission.h"
#include "server/frontend/rpc/unary.h"
#include "server/frontend/rpc/upload.h"
#include "server/frontend/rpc/watcher.h"

namespace kino::frontend {
namespace {

// Into the RPC's response; its status.
template <typename Message>
absl::Status Put(absl::StatusOr<Message> result, Message* response) {
  if (!result.ok()) return result.status();
  *response = *std::move(result);
  return absl::OkStatus();
}

}  // namespace

grpc::ServerWriteReactor<v1::JobEvent>* VideoService::Generate(grpc::CallbackServerContext* call,
                                                               const v1::GenerateRequest* request) {
  return Watcher::Generate(context_, Admit(context_, *call), request);
}

grpc::ServerUnaryReactor* VideoService::SubmitJob(grpc::CallbackServerContext* call,
                                                  const v1::SubmitJobRequest* request,
                                                  v1::Job* response) {
  return ServeUnaryAsync(context_, context_.rpc, call, request,
                         [this, request, response](const Caller& caller, const UnaryDone& done) {
                           frontend::SubmitJob(
                               context_, caller, request->request(),
                               [this, response, done](const absl::StatusOr<scheduler::Job>& job) {
                                 if (job.ok())
                                   *response = ToProto(*job, context_.config.retention.results);
                                 done(job.status());
                               });
                         });
}

grpc::ServerUnaryReactor* VideoService::GetJob(grpc::CallbackServerContext* call,
                                               const v1::GetJobRequest* request,
                                               v1::Job* response) {
  return ServeUnary(context_, context_.rpc, call, request,
                    [this, request, response](const std::string& tenant) {
                      return Put(frontend::GetJob(context_, tenant, request->id()), response);
                    });
}

grpc::ServerUnaryReactor* VideoService::ListJobs(grpc::CallbackServerContext* call,
                                                 const v1::ListJobsRequest* request,
                                                 v1::ListJobsResponse* response) {
  return ServeUnary(context_, context_.slow, call, request,
                    [this, request, response](const std::string& tenant) {
                      return Put(frontend::ListJobs(context_, tenant, *request), response);
                    });
}

grpc::ServerUnaryReactor* VideoService::CancelJob(grpc::CallbackServerContext* call,
                                                  const v1::CancelJobRequest* request,
                                                  v1::Job* response) {
  return ServeUnary(context_, context_.rpc, call, request,
                    [this, request, response](const std::string& tenant) {
                      return Put(frontend::CancelJob(context_, tenant, request->id()), response);
                    });
}

grpc::ServerUnaryReactor* VideoService::RequeueJob(grpc::CallbackServerContext* call,
                                                   const v1::RequeueJobRequest* request,
                                                   v1::Job* response) {
  return ServeUnary(
      context_, context_.rpc, call, request,
      [this, request, response](const std::string& tenant) {
        return Put(frontend::RequeueJob(context_, tenant, request->id()), response);
      },
      config::Role::kOperate);
}

grpc::ServerUnaryReactor* VideoService::CancelJobs(grpc::CallbackServerContext* call,
                                                   const v1::CancelJobsRequest* request,
                                                   v1::CancelJobsResponse* response) {
  return ServeUnaryAsync(
      context_, context_.slow, call, request,
      [this, call, request, response](const Caller& caller, const UnaryDone& done) {
        frontend::CancelJobs(
            context_, caller.tenant, *request, [call] { return call->IsCancelled(); },
            [response, done](absl::StatusOr<v1::CancelJobsResponse> result) {
              done(Put(std::move(result), response));
            });
      });
}

grpc::ServerUnaryReactor* VideoService::DeleteJob(grpc::CallbackServerContext* call,
                                                  const v1::DeleteJobRequest* request,
                                                  v1::DeleteJobResponse* response) {
  (void)response;
  return ServeUnary(context_, context_.rpc, call, request,
                    [this, request](const std::string& tenant) {
                      return frontend::DeleteJob(context_, tenant, request->id());
                    });
}

grpc::ServerWriteReactor<v1::JobEvent>* VideoService::WatchJob(grpc::CallbackServerContext* call,
                                                               const v1::WatchJobRequest* request) {
  return Watcher::Watch(context_, Admit(context_, *call), *request);
}

grpc::ServerWriteReactor<v1::DownloadVideoResponse>* VideoService::DownloadVideo(
    grpc::CallbackServerContext* call, const v1::DownloadVideoRequest* request) {
  return Download::Start(context_, Admit(context_, *call), *request);
}

grpc::ServerReadReactor<v1::UploadAssetRequest>* VideoService::UploadAsset(
    grpc::CallbackServerContext* call, v1::Asset* response) {
  return Upload::Start(context_, Admit(context_, *call), response);
}

}  // namespace kino::frontend
