#include "server/frontend/frontend.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"
#include "scheduler/store/sqlite/open.h"
#include "server/config/data_dir.h"
#include "server/frontend/rpc/parse_refusal.h"
#include "server/frontend/rpc/request_check.h"
#include "server/frontend/tls/certificate.h"
#include "server/frontend/tls/listener_credentials.h"

namespace kino::frontend {
namespace {

constexpr int kMaxMessageBytes = 4 << 20;
constexpr int kMaxStreamsPerConnection = 1024;
constexpr size_t kMaxTransportBytes = size_t{512} << 20;
constexpr absl::Duration kLookInterval = absl::Milliseconds(500);
constexpr absl::Duration kHealthInterval = absl::Milliseconds(250);
constexpr absl::Duration kShutdownDeadline = absl::Seconds(5);
// Of the files that the process may open, for everything but connections.
constexpr int64_t kFilesKept = 512;
constexpr int kMaxLinkConnections = 256;
constexpr int kHandshakeTimeoutMs = 10'000;
constexpr absl::Duration kLinkShutdownDeadline = absl::Seconds(2);

std::chrono::system_clock::time_point In(absl::Duration duration) {
  return std::chrono::system_clock::now() + absl::ToChronoMilliseconds(duration);
}

// Reflection is the only service on gRPC's own threads: it gets one queue and few threads.
void Bound(grpc::ServerBuilder& builder, const std::string& name) {
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
  grpc::ResourceQuota quota(name);
  quota.Resize(kMaxTransportBytes);
  quota.SetMaxThreads(4);
  builder.SetResourceQuota(quota);
  // A connection that says nothing, or too little, is not kept.
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 8192);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // Clients ping every 10 s or so to keep a quiet watch alive, and more often where a proxy is
  // impatient; only a flood is answered with GOAWAY.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1'000);
}

// Lets gRPC serve what the acceptor takes, once the server is started.
using Connections = std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor>;
Connections AddConnections(grpc::ServerBuilder& builder,
                           std::shared_ptr<grpc::ServerCredentials> credentials) {
  return builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      std::move(credentials));
}

TakeConnection Into(Connections connections) {
  return [connections = std::shared_ptr(std::move(connections))](int fd) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
    connection.fd = fd;
    connections->HandleNewConnection(&connection);
  };
}

// As many connections as are configured, unless the process may open too few files for them.
AcceptorLimits ConnectionLimits(const config::LimitsConfig& limits) {
  rlimit files{};
  int64_t most = limits.max_connections;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur != RLIM_INFINITY) {
    const int64_t fit = (static_cast<int64_t>(files.rlim_cur) - kFilesKept) / 2;
    if (fit < most) {
      most = std::max<int64_t>(fit, 16);
      spdlog::warn("limits.max_connections: {} are let in, not {}: this process may open {} files",
                   most, limits.max_connections, files.rlim_cur);
    }
  }
  return {.connections = static_cast<int>(most),
          .connections_per_address = limits.max_address_connections};
}

}  // namespace

Frontend::Frontend(FrontendOptions options)
    : options_(std::move(options)),
      certificate_version_(
          {options_.config.listen.tls.certificate, options_.config.listen.tls.key}),
      last_server_(options_.config.data_dir, options_.supervisor_id) {}

Frontend::~Frontend() { Stop(); }

absl::StatusOr<std::unique_ptr<Frontend>> Frontend::Start(FrontendOptions options) {
  std::unique_ptr<Frontend> frontend(new Frontend(std::move(options)));
  absl::Status status = frontend->OpenParts();
  if (status.ok()) status = frontend->RemoveLeftovers();
  if (status.ok()) status = frontend->StartLink();
  if (status.ok()) status = frontend->ListenForWorkers();
  if (status.ok()) status = frontend->ListenForClients();
  if (!status.ok()) return status;
  return frontend;
}

absl::Status Frontend::OpenParts() {
  const config::Config& config = options_.config;
  absl::StatusOr<std::unique_ptr<Admission>> admission =
      Admission::Make(config.auth, config.limits, clock_);
  if (!admission.ok()) return absl::FailedPreconditionError(admission.status().message());
  admission_ = *std::move(admission);
  absl::Status prepared = config::PrepareDataDir(config);
  if (prepared.ok()) prepared = config::PrepareLinkFolder(config);
  if (!prepared.ok()) return prepared;
  const absl::StatusOr<std::string> secret = config::EnsureLinkSecret(config);
  if (!secret.ok()) return secret.status();
  absl::StatusOr<std::unique_ptr<FileStore>> files = FileStore::Open(config.data_dir);
  if (!files.ok()) return files.status();
  files_ = *std::move(files);

  scheduler::StoreOptions store_options{
      .retry = {.max_attempts = config.retry.max_attempts,
                .max_crashes = config.retry.max_crashes,
                .min_backoff = config.retry.min_backoff,
                .max_backoff = config.retry.max_backoff},
      .admission = {.max_queued_jobs = config.limits.max_queued_jobs,
                    .max_tenant_queued_jobs = config.limits.max_tenant_queued_jobs,
                    .max_request_bytes = kMaxStoredRequestBytes},
      .log = [](const std::string& message) { spdlog::warn("store: {}", message); },
      .committed = [this](absl::Duration took) { metrics_.StoreCommitted(took); },
      .checked =
          [this](const absl::Status& found) {
            // That the look could not be made says nothing of the file.
            if (absl::IsDataLoss(found)) is_store_damaged_ = true;
          }};
  absl::StatusOr<std::unique_ptr<scheduler::JobStore>> store = scheduler::OpenSqliteJobStore(
      {.path = absl::StrCat(config.data_dir, "/kino.db")}, store_options, clock_, random_);
  if (!store.ok()) return store.status();
  store_ = *std::move(store);
  budget_ = std::make_unique<DiskBudget>(*store_, *files_, config.limits);
  catalog_ = std::make_unique<Catalog>(config.models);

  std::vector<std::string> workers;
  std::set<std::string> models;
  for (const config::ModelConfig& model : config.models) models.insert(model.name);
  for (const config::WorkerConfig& worker : config.workers) workers.push_back(worker.name);
  link_ = std::make_unique<WorkerLink>(
      WorkerLinkOptions{.workers = std::move(workers),
                        .models = std::move(models),
                        .link = config.link,
                        .limits = config.limits,
                        .retry = config.retry,
                        .retention = config.retention,
                        .link_secret = *secret,
                        .devices_file = config.data_dir + "/run/devices_out"},
      WorkerLinkParts{.store = *store_,
                      .files = *files_,
                      .budget = *budget_,
                      .history = history_,
                      .hub = hub_,
                      .metrics = metrics_,
                      .clock = clock_,
                      .io = io_,
                      .judge = [this](const auto&... question) { judge_->Ask(question...); }});
  profiles_ = std::make_unique<Profiles>(
      ProfilesOptions(),
      [this](const std::string& kind, v1::ProfileQuery query, Profiles::Done done) {
        link_->AskProfile(kind, std::move(query), std::move(done));
      });
  judge_ = std::make_unique<FitJudge>(config, *store_, *catalog_, *profiles_, *link_);
  queue_ = std::make_unique<QueueView>(
      QueueSources{
          .store = *store_,
          .clock = clock_,
          .workers = [this] { return link_->Workers(); },
          .held_because = [this] { return link_->HeldBecause(); },
          .held_tenants = [this] { return link_->HeldTenants(); },
          .waits_for_memory = [this](const std::string& id) { return link_->WaitsForMemory(id); },
          .busy = [this] { return link_->Busy(); },
          .history = &history_},
      hub_);
  slow_.Repeat(kLookInterval, [this] {
    queue_->RefreshForWatchers();
    admission_->Refresh();
    LookAtCertificate();
  });
  // Not behind calls that wait for a worker's answer.
  rpc_.Repeat(kHealthInterval, [this] { TellHealth(); });
  idle_uploads_ = std::make_unique<IdleUploads>(clock_, config.limits.upload_idle_timeout);
  watch_.Repeat(idle_uploads_->LookInterval(), [this] { idle_uploads_->Look(); });
  context_ = std::make_unique<Context>(Context{.config = options_.config,
                                               .store = *store_,
                                               .files = *files_,
                                               .budget = *budget_,
                                               .hub = hub_,
                                               .queue = *queue_,
                                               .link = *link_,
                                               .profiles = *profiles_,
                                               .metrics = metrics_,
                                               .catalog = *catalog_,
                                               .admission = *admission_,
                                               .clock = clock_,
                                               .random = random_,
                                               .probe = options_.probe,
                                               .rpc = rpc_,
                                               .slow = slow_,
                                               .watch = watch_,
                                               .media = media_,
                                               .streams = streams_,
                                               .uploads = uploads_,
                                               .commands = commands_,
                                               .idle_uploads = *idle_uploads_});
  return absl::OkStatus();
}

absl::Status Frontend::StartLink() {
  absl::StatusOr<LastStop> last_stop = last_server_.Read();
  if (!last_stop.ok()) return last_stop.status();
  if (*last_stop == LastStop::kUnclean) spdlog::warn("the last server was stopped uncleanly");
  return link_->Start(*last_stop, [this] { return last_server_.TakeOver(); });
}

absl::Status Frontend::RemoveLeftovers() {
  const auto running = store_->RunningAttempts();
  if (!running.ok()) return running.status();
  std::set<std::string> partial;
  for (const scheduler::RunningAttempt& attempt : *running)
    partial.insert(FileStore::VideoName(attempt.ref.job_id, attempt.ref.attempt));
  const absl::StatusOr<int> removed =
      files_->RemoveLeftovers([&](const std::vector<std::string>& names) {
        absl::StatusOr<std::vector<std::string>> left_over = store_->FindLeftOverFiles(names);
        if (left_over.ok())
          std::erase_if(*left_over, [&](const auto& name) { return partial.contains(name); });
        return left_over;
      });
  if (!removed.ok()) return removed.status();
  if (*removed > 0) spdlog::info("removed {} left-over files", *removed);
  return absl::OkStatus();
}

absl::Status Frontend::ListenForWorkers() {
  if (options_.control_fd >= 0) {
    control_ = std::make_unique<ControlLink>(
        options_.control_fd, [this](const config::ControlMessage& message) {
          if (std::holds_alternative<config::MachineStopping>(message)) {
            is_machine_stopping_ = true;
            last_server_.NoteOrderlyStop();
          }
          link_->OnControl(message);
        });
    link_->SetKillWorker(
        [this](const std::string& worker, int pid) { return control_->Kill(worker, pid); });
  }
  link_service_ = std::make_unique<LinkService>(*link_);
  // The store's lock says that no other frontend uses the socket that lies there.
  absl::StatusOr<std::unique_ptr<Acceptor>> acceptor = Acceptor::ListenUnix(
      config::LinkSocketPath(options_.config), {.connections = kMaxLinkConnections});
  if (!acceptor.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the workers' socket: ", acceptor.status().message()));
  }
  link_acceptor_ = *std::move(acceptor);
  grpc::ServerBuilder builder;
  Bound(builder, "workers");
  Connections connections = AddConnections(builder, grpc::InsecureServerCredentials());
  builder.RegisterService(link_service_.get());
  link_server_ = builder.BuildAndStart();
  if (link_server_ == nullptr)
    return absl::FailedPreconditionError("the workers' server cannot be started");
  link_acceptor_->Start(Into(std::move(connections)));
  return absl::OkStatus();
}

absl::Status Frontend::ListenForClients() {
  const config::Config& config = options_.config;
  absl::StatusOr<std::string> metrics_address = metrics_.Listen(config.metrics.address);
  if (!metrics_address.ok())
    return absl::FailedPreconditionError(metrics_address.status().message());
  metrics_address_ = *metrics_address;

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  video_service_ = std::make_unique<VideoService>(*context_);
  model_service_ = std::make_unique<ModelService>(*context_);
  const auto credentials = ListenerCredentials(config.listen.tls);
  if (!credentials.ok())
    return absl::FailedPreconditionError(
        absl::StrCat("listen.tls: ", std::string(credentials.status().message())));
  absl::StatusOr<std::unique_ptr<Acceptor>> acceptor =
      Acceptor::ListenTcp(config.listen.address, ConnectionLimits(config.limits));
  if (!acceptor.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("listen.address: ", acceptor.status().message()));
  }
  acceptor_ = *std::move(acceptor);
  grpc::ServerBuilder builder;
  Bound(builder, "clients");
  Connections connections = AddConnections(builder, *credentials);
  reset_guard_ = std::make_unique<ResetGuard>(clock_, [this](const std::string& peer) {
    if (acceptor_->Close(peer))
      spdlog::warn("{}: takes back more calls than it may, its connection is closed", peer);
  });
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(ParseRefusals());
  interceptors.push_back(reset_guard_->Interceptors());
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  builder.RegisterService(video_service_.get());
  builder.RegisterService(model_service_.get());
  server_ = builder.BuildAndStart();
  if (server_ == nullptr)
    return absl::FailedPreconditionError("the clients' server cannot be started");
  acceptor_->Start(Into(std::move(connections)));
  address_ = absl::StrCat(config.listen.address.substr(0, config.listen.address.rfind(':')), ":",
                          acceptor_->port());
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  for (const char* service : {"", "kino.v1.VideoService", "kino.v1.ModelService"}) {
    health->SetServingStatus(service, true);
  }
  {
    absl::MutexLock lock(&health_mutex_);
    health_ = health;
  }
  TellHealth();
  absl::Status written = config::WriteAddressFile(config, "metrics.addr", metrics_address_);
  if (written.ok()) written = config::WriteAddressFile(config, "frontend.addr", address_);
  if (!written.ok()) return written;
  spdlog::info("kino-frontend {} serves {}, metrics on {}", KINO_VERSION, address_,
               metrics_address_);
  return absl::OkStatus();
}

void Frontend::LookAtCertificate() {
  const config::TlsConfig& tls = options_.config.listen.tls;
  if (!tls.is_on() || !certificate_version_.HasChanged()) return;
  const absl::StatusOr<Certificate> certificate = ReadCertificate(tls);
  if (!certificate.ok()) {
    spdlog::error("listen.tls: nobody is let in until this is mended: {}",
                  std::string(certificate.status().message()));
    return;
  }
  metrics_.SetCertificateExpiry(certificate->not_after);
  spdlog::info("listen.tls: the certificate ends at {}",
               absl::FormatTime(certificate->not_after, absl::UTCTimeZone()));
}

void Frontend::TellHealth() {
  std::map<std::string, bool> serving = {{"store", !is_store_damaged_}};
  for (const config::ModelConfig& model : options_.config.models)
    serving["model/" + model.name] = false;
  for (const config::WorkerConfig& worker : options_.config.workers) {
    serving["worker/" + worker.name] = false;
    serving["device/" + worker.device] = false;
  }
  for (const scheduler::WorkerSnapshot& worker : link_->Workers()) {
    if (worker.session == 0 || worker.is_draining || worker.is_out) continue;
    serving["worker/" + worker.name] = true;
    serving["device/" + worker.device] = true;
    for (const scheduler::WorkerModel& model : worker.models) serving["model/" + model.name] = true;
  }
  absl::MutexLock lock(&health_mutex_);
  if (health_ == nullptr) return;
  for (const auto& [name, is_serving] : serving) health_->SetServingStatus(name, is_serving);
  metrics_.SetConnections(acceptor_->open());
}

void Frontend::Stop() {
  if (is_stopped_) return;
  is_stopped_ = true;
  const absl::Time begun = absl::Now();
  if (server_ != nullptr) {
    {
      absl::MutexLock lock(&health_mutex_);
      health_ = nullptr;
    }
    server_->GetHealthCheckService()->SetServingStatus(false);
    unlink(absl::StrCat(options_.config.data_dir, "/frontend.addr").c_str());
    unlink(absl::StrCat(options_.config.data_dir, "/metrics.addr").c_str());
  }
  if (acceptor_ != nullptr) acceptor_->Stop();
  if (link_ != nullptr) link_->StopClaiming();
  hub_.GoAway();
  // The listener waits for the uploads that are decoded.
  options_.stop_probe();
  if (server_ != nullptr) server_->Shutdown(In(kShutdownDeadline));
  if (is_machine_stopping_ && link_ != nullptr) {
    // The workers give their attempts back by themselves; what is left when kinod's patience ends
    // is found at the next start.
    link_->WaitForAttempts(options_.config.supervisor.stop_deadline * 0.9 - (absl::Now() - begun));
  }
  if (judge_ != nullptr) judge_->Stop();
  if (link_acceptor_ != nullptr) link_acceptor_->Stop();
  if (link_ != nullptr) link_->Stop();
  if (link_server_ != nullptr) link_server_->Shutdown(In(kLinkShutdownDeadline));
  // Those first that post to the ones behind them.
  for (Executor* executor : {&rpc_, &slow_, &media_, &watch_, &io_}) {
    executor->Stop();
  }
  if (queue_ != nullptr) queue_->Stop();
  server_.reset();
  link_server_.reset();
  control_.reset();
  store_.reset();
  spdlog::info("kino-frontend has stopped");
}

}  // namespace kino::frontend
