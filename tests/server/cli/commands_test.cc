// The commands of `kino` that make one call, its options, and how it finds the server.
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <thread>

#include "google/protobuf/text_format.h"
#include "google/rpc/error_details.pb.h"
#include "tests/server/cli/cli_fixture.h"

namespace kino::cli {
namespace {

TEST_F(CliTest, SubmitPrintsTheIdAndSendsTheToken) {
  EXPECT_EQ(Run({"submit", "x", "--token", "sesame", "--label", "a=b"}), 0);
  EXPECT_EQ(Output(), "job-1\n");
  EXPECT_EQ(server_.authorization, "Bearer sesame");
  EXPECT_EQ(server_.submitted.request().labels().at("a"), "b");
}

TEST_F(CliTest, AnImageIsUploadedAndNamed) {
  const std::string bytes(2'500'000, 'p');
  std::ofstream(folder_ + "/a.png") << bytes;
  EXPECT_EQ(Run({"submit", "x", "--image", folder_ + "/a.png"}), 0);
  EXPECT_EQ(server_.uploaded, bytes);
  ASSERT_EQ(server_.submitted.request().conditions_size(), 1);
  EXPECT_EQ(server_.submitted.request().conditions(0).asset_id(), "asset-1");
  EXPECT_EQ(Run({"submit", "x", "--image", folder_ + "/absent.png"}), 4);
  EXPECT_THAT(Output(), HasSubstr("absent.png"));
}

TEST_F(CliTest, JobsFollowsPagesAndFilters) {
  EXPECT_EQ(Run({"jobs", "--state", "queued", "--model", "demo", "--label", "a=b"}), 0);
  ASSERT_EQ(server_.listed.size(), 2u);
  EXPECT_EQ(server_.listed[0].states(0), v1::QUEUED);
  EXPECT_EQ(server_.listed[0].model(), "demo");
  EXPECT_EQ(server_.listed[0].labels().at("a"), "b");
  EXPECT_EQ(server_.listed[1].page_token(), "more");
  EXPECT_THAT(Output(), HasSubstr("job-1"));
  EXPECT_THAT(Output(), Not(HasSubstr("\x1b"))) << "a prompt must not reach the terminal raw";
}

TEST_F(CliTest, TheOneCallCommandsReachTheirMethods) {
  EXPECT_EQ(Run({"show", "job-1"}), 0);
  EXPECT_THAT(Output(), HasSubstr("job-1"));
  EXPECT_EQ(Run({"cancel", "job-1"}), 0);
  EXPECT_EQ(server_.cancelled_id, "job-1");
  EXPECT_EQ(Run({"delete", "job-1"}), 0);
  EXPECT_EQ(server_.deleted_id, "job-1");
  EXPECT_EQ(Run({"models"}), 0);
  EXPECT_THAT(Output(), HasSubstr("demo"));
  EXPECT_EQ(Run({"load", "demo", "--json"}), 0);
  EXPECT_EQ(Output(), "{\"name\":\"demo\"}\n");
  EXPECT_EQ(Run({"unload", "demo"}), 4) << "this server does not implement it";
}

TEST_F(CliTest, ModelsTellWhatTheyAreAndTake) {
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"(family: "cogvideox" generation: "CogVideoX-5b" pipeline_class: "CogVideoXPipeline"
         license: "other\x1b" license_link: "LICENSE"
         limits { size_multiple: 16 min_size: 16 max_size: 4096 frames_multiple: 8 max_frames: 8193
                  max_pixels: 1000000000 max_steps: 1000 }
         workers { worker: "gpu" loaded: true } workers { worker: "cpu" }
         tasks { task: TEXT_TO_VIDEO
                 native { height: 480 width: 720 num_frames: 49 fps: 8 }
                 defaults { height: 64 width: 96 num_frames: 9 fps: 12 num_inference_steps: 30
                            guidance_scale: 6.5 negative_prompt: "blurry" }
                 knobs { name: "scheduler" min: 0 max: 2 default { integer: 2 } help: "Which." }
                 knobs { name: "clean_caption" min: 0 max: 1 default { integer: 0 } help: "No." }
                 knobs { name: "sigmas" min: 0 max: 1 default { numbers { values: 1 values: 0.5 } }
                         help: "Levels." } }
         tasks { task: VIDEO_TO_VIDEO })",
      &server_.model));
  EXPECT_EQ(Run({"models"}), 0);
  const std::string row = Output();
  EXPECT_THAT(row, HasSubstr("NAME                      FAMILY      GENERATION"));
  EXPECT_THAT(row, ::testing::ContainsRegex("demo +cogvideox +CogVideoX-5b +gpu \\(loaded\\), cpu  "
                                            "TEXT_TO_VIDEO, VIDEO_TO_VIDEO\n"));
  EXPECT_EQ(std::count(row.begin(), row.end(), '\n'), 2);
  EXPECT_EQ(Run({"models", "big"}), 0);
  const std::string told = Output();
  for (const char* line :
       {"name         big\n", "license      other  (LICENSE)\n",
        "sides of 16 to 4096 pixels by 16, 1 to 8193 frames (k*8+1), 1000000000 pixels in all, 1 "
        "to "
        "1000 steps\n",
        "  native     720x480, 49 frames at 8/s\n", "  defaults   96x64, 9 frames at 12/s\n",
        "30 steps, guidance 6.5\n", "without: blurry\n", "scheduler = 2 (0 to 2): Which.\n",
        "clean_caption = 0 (0 to 1): No.\n", "sigmas = 1, 0.5 (0 to 1): Levels.\n"}) {
    EXPECT_THAT(told, HasSubstr(line));
  }
  server_.model.mutable_limits()->set_frames_multiple(1);
  EXPECT_EQ(Run({"models", "big"}), 0);
  EXPECT_THAT(Output(), HasSubstr("1 to 8193 frames, 1000000000 pixels"));
  // What denoises nothing has no steps.
  server_.model.mutable_limits()->clear_max_steps();
  server_.model.mutable_tasks(0)->mutable_defaults()->clear_num_inference_steps();
  EXPECT_EQ(Run({"models", "big"}), 0);
  EXPECT_THAT(Output(), Not(HasSubstr(" steps")));
  EXPECT_EQ(Run({"models", "big", "--json"}), 0);
  EXPECT_THAT(Output(), HasSubstr(R"("generation":"CogVideoX-5b")"));
}

TEST_F(CliTest, AModelsKnobsAreOptions) {
  server_.knob = "depth_of_field";
  EXPECT_EQ(Run({"submit", "--depth-of-field", "0.5", "a prompt"}), 0) << Output();
  EXPECT_EQ(server_.submitted.request().prompt(), "a prompt");
  EXPECT_EQ(server_.submitted.request().knobs().at("depth_of_field").number(), 0.5);
  EXPECT_EQ(Run({"submit", "a prompt", "--depth-of-field", "deep"}), 2);
  EXPECT_THAT(Output(), HasSubstr("--depth-of-field: expected a finite number, got 'deep'"));
  EXPECT_EQ(Run({"submit", "a prompt", "--colour", "red"}), 2);
  EXPECT_THAT(Output(), HasSubstr("'--colour'"));
  EXPECT_THAT(Output(), HasSubstr("--depth-of-field"));
  EXPECT_EQ(Run({"submit", "--help"}), 0);
  EXPECT_THAT(Output(), HasSubstr("--depth-of-field X"));
  EXPECT_THAT(Output(), HasSubstr("Of the family."));
  EXPECT_EQ(Run({"submit", "--version"}), 0);
  EXPECT_EQ(Output(), "kino " KINO_VERSION "\n");
}

TEST_F(CliTest, HelpNeedsNoServer) {
  Close();
  EXPECT_EQ(Run({"submit", "--help"}), 0);
  EXPECT_THAT(Output(), HasSubstr("--guidance-scale X"));
  EXPECT_THAT(Output(), HasSubstr("--help --model NAME"));
}

TEST_F(CliTest, AnAbsentServerIsUnreachable) {
  Close();
  for (const char* command : {"generate", "submit", "models"}) {
    std::vector<std::string> arguments = {command};
    if (std::string(command) == "generate") arguments.push_back("--out=" + out_);
    EXPECT_EQ(Run(arguments), 3) << command;
    EXPECT_THAT(Output(), HasSubstr("cannot be reached"));
  }
  EXPECT_FALSE(fs::exists(out_ + ".part"));
}

TEST_F(CliTest, BadUsageIsExitCodeTwo) {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"dance"}, {"show"}, {"jobs", "--state", "odd"}, {"generate", "--height", "tall"}}) {
    EXPECT_EQ(Run(arguments), 2) << arguments[0];
  }
  EXPECT_EQ(support::Process({std::string(KINO_BIN_DIR) + "/kino"}, log_).Wait(), 2);
  EXPECT_EQ(support::Process({std::string(KINO_BIN_DIR) + "/kino", "--version"}, log_).Wait(), 0);
  EXPECT_THAT(Output(), HasSubstr(KINO_VERSION));
  EXPECT_EQ(Run({"generate", "--help"}), 0);
}

// What reaches a proxy, which answers nothing.
class Proxy {
 public:
  Proxy() {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 8), 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      for (int fd; (fd = accept(listener_, nullptr, nullptr)) >= 0; close(fd)) {
        char bytes[512];
        const ssize_t got = read(fd, bytes, sizeof(bytes));
        absl::MutexLock lock(&mutex_);
        if (got > 0) asked_.append(bytes, static_cast<size_t>(got));
      }
    });
  }
  ~Proxy() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::string asked() {
    absl::MutexLock lock(&mutex_);
    return asked_;
  }

 private:
  int listener_ = -1, port_ = 0;
  absl::Mutex mutex_;
  std::string asked_;
  std::thread thread_;
};

TEST_F(CliTest, AProxyIsForOtherMachinesOnly) {
  Proxy proxy;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(static_cast<v1::VideoService::Service*>(&server_));
  const std::unique_ptr<grpc::Server> tcp = builder.BuildAndStart();
  const auto show = [&](const std::string& server, const std::string& environment) {
    return support::Process({"/bin/bash", "-c",
                             "http_proxy=" + proxy.url() + " " + environment + " timeout 60 " +
                                 std::string(KINO_BIN_DIR) + "/kino show job-1 --server=" + server},
                            log_)
        .Wait();
  };
  for (const std::string host : {"127.0.0.1", "localhost", "dns:///127.0.0.1"}) {
    EXPECT_EQ(show(host + ":" + std::to_string(port), ""), 0) << Output();
  }
  EXPECT_EQ(show("unix:" + folder_ + "/sock", ""), 0) << Output();
  EXPECT_EQ(proxy.asked(), "");
  EXPECT_EQ(show("kino.invalid:50051", "no_proxy=kino.invalid"), 3);
  EXPECT_EQ(proxy.asked(), "");
  EXPECT_EQ(show("kino.invalid:50051", ""), 3);
  EXPECT_THAT(proxy.asked(), HasSubstr("CONNECT kino.invalid:50051"));
  tcp->Shutdown(absl::ToChronoTime(absl::Now()));
}

TEST_F(CliTest, TextThatIsNotUtf8IsUsageAndNamesItsOption) {
  const std::string bytes = "caf\xe9";
  std::ofstream(folder_ + "/r.json") << "{\"prompt\": \"" << bytes << "\"}";
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"submit", bytes}, "PROMPT"},
      {{"submit", "--prompt", bytes}, "--prompt"},
      {{"generate", "x", "--negative-prompt", bytes}, "--negative-prompt"},
      {{"submit", "x", "--label", "k=" + bytes}, "--label"},
      {{"submit", "x", "--model", bytes}, "--model"},
      {{"submit", "x", "--request-id", bytes}, "--request-id"},
      {{"submit", "x", "--offload", bytes}, "--offload"},
      {{"submit", "--request", folder_ + "/r.json"}, "--request"},
      {{"jobs", "--label", bytes + "=v"}, "--label"},
      {{"show", bytes}, "ID"},
      {{"load", bytes}, "MODEL"},
  };
  for (const auto& [arguments, option] : cases) {
    EXPECT_EQ(Run(arguments), 2) << option << Output();
    EXPECT_THAT(Output(), HasSubstr("kino: " + std::string(option) + ":"));
    EXPECT_THAT(Output(), HasSubstr("UTF-8"));
    EXPECT_THAT(Output(), Not(HasSubstr(bytes))) << "raw bytes on a terminal";
  }
}

TEST_F(CliTest, MoreJobsThanAreShownAreToldOf) {
  server_.jobs_listed_first = 100;
  EXPECT_EQ(RunShell("jobs", "> /dev/null"), 0);
  EXPECT_EQ(
      Output(),
      "kino: there are more jobs than these 100; --limit N shows so many, --all all of them\n");
  EXPECT_EQ(server_.listed.back().page_size(), 100);
  for (const char* silent : {"jobs --quiet", "jobs --limit 100"}) {
    EXPECT_EQ(RunShell(silent, "> /dev/null"), 0);
    EXPECT_EQ(Output(), "");
  }
  server_.listed.clear();
  EXPECT_EQ(RunShell("jobs --all --json", "| wc -l"), 0);
  EXPECT_EQ(Output(), "101\n");
  ASSERT_EQ(server_.listed.size(), 2u);
  EXPECT_EQ(server_.listed[0].page_size(), 1000);
  EXPECT_EQ(Run({"jobs", "--all", "--limit", "5"}), 2);
  server_.jobs_listed_first = 99;  // the second page fills the hundred and is the last
  EXPECT_EQ(RunShell("jobs", "> /dev/null"), 0);
  EXPECT_EQ(Output(), "");
}

TEST_F(CliTest, ErrorsAreJsonWithJson) {
  server_.status = ToGrpc(convert::InvalidRequest({{"height", "too tall"}}));
  EXPECT_EQ(RunShell("submit x --json", "2>&1 >/dev/null"), 4);
  EXPECT_THAT(Output(), HasSubstr(R"("code":"INVALID_ARGUMENT")"));
  EXPECT_THAT(Output(), HasSubstr(R"("field":"height")"));
  EXPECT_THAT(Output(), HasSubstr(R"("description":"too tall")"));
  server_.status = ToGrpc(QueueIsFull());
  for (const char* command : {"show job-1", "submit x", "cancel job-1", "delete job-1"}) {
    EXPECT_EQ(RunShell(std::string(command) + " --json", ""), 4);
    EXPECT_THAT(Output(), HasSubstr(R"("reason":"QUEUE_FULL")"));
    EXPECT_THAT(Output(), HasSubstr(R"("message":"the queue is full")"));
    EXPECT_THAT(Output(), HasSubstr(R"("retry_seconds":7)"));
    EXPECT_EQ(Output().find('{'), 0u);
    EXPECT_EQ(Output().find('\n'), Output().size() - 1) << "one line";
  }
  for (const char* command : {"jobs --limit 0", "submit --height tall", "submit x --json --height",
                              "dance", "jobs --state odd", "submit --label x y",
                              "generate x --out "
                              "/tmp"}) {
    const int code = RunShell(std::string(command) + " --json", "");
    EXPECT_EQ(code, std::string(command).find("--out") == std::string::npos ? 2 : 4) << command;
    EXPECT_EQ(Output().find("{\"error\":{"), 0u) << Output();
  }
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    v1::JobEvent event = Finished(v1::FAILED);
    event.mutable_finished()->mutable_error()->set_code(14);
    event.mutable_finished()->mutable_error()->set_message("the reason why");
    out->Write(event);
    return Status::OK;
  };
  EXPECT_EQ(RunShell("generate x --json --out " + out_, "2>&1 >/dev/null"), 1);
  EXPECT_THAT(Output(), HasSubstr(R"("code":"UNAVAILABLE")"));
  EXPECT_THAT(Output(), HasSubstr("ended as FAILED: the reason why"));
  EXPECT_THAT(Output(), Not(HasSubstr("cannot be reached")));
  Close();
  EXPECT_EQ(RunShell("models --json", ""), 3);
  EXPECT_THAT(Output(), HasSubstr(R"("code":"UNAVAILABLE")"));
  EXPECT_THAT(Output(), HasSubstr("cannot be reached"));
}

TEST_F(CliTest, ShowTellsWhyAttemptsEnded) {
  const auto add = [&](int number, const char* reason, const char* message) {
    v1::Attempt* const attempt = server_.job.add_attempts();
    attempt->set_number(number);
    attempt->set_worker("cpu");
    attempt->mutable_start_time()->set_seconds(100);
    attempt->mutable_end_time()->set_seconds(112);
    attempt->mutable_end_time()->set_nanos(500'000'000);
    absl::Status status = absl::InternalError(message);
    google::rpc::ErrorInfo info;
    info.set_reason(reason);
    convert::AddDetail(&status, info);
    *attempt->mutable_error() = convert::ToRpc(status);
  };
  add(1, "CRASH", "signal 9 (Killed)");
  v1::CrashEvidence& evidence = *server_.job.mutable_attempts(0)->mutable_evidence();
  evidence.set_signal(9);
  evidence.set_stage(v1::DENOISE);
  evidence.set_step(7);
  evidence.set_device("cuda:0");
  evidence.set_device_memory_bytes(int64_t{3} << 29);
  add(2, "OF_A_NEWER_SERVER", "a \x1b[31mword");
  v1::Attempt* const last = server_.job.add_attempts();
  last->set_number(3);
  last->set_worker("gpu");
  EXPECT_EQ(Run({"show", "job-1"}), 0);
  EXPECT_THAT(Output(), HasSubstr("1 on cpu, 12.5 s: its worker ended: signal 9 (Killed)\n"));
  EXPECT_THAT(Output(),
              HasSubstr("\n  evidence   signal 9, in denoise, step 7, on cuda:0 with 1.50 GiB "
                        "in use\n"));
  EXPECT_THAT(Output(), HasSubstr("2 on cpu, 12.5 s: of a newer server: a  [31mword\n"));
  EXPECT_THAT(Output(), HasSubstr("3 on gpu\n"));
}

TEST_F(CliTest, ShowTellsWhatMadeTheVideo) {
  v1::Receipt& receipt = *server_.job.mutable_receipt();
  receipt.set_worker("gpu");
  receipt.set_worker_version("1.2");
  receipt.set_device("cuda:0");
  receipt.set_device_name("a fast\x1b one");
  receipt.set_model_sha256("abab");
  EXPECT_EQ(Run({"show", "job-1"}), 0);
  EXPECT_THAT(Output(), HasSubstr("made by      gpu 1.2 on cuda:0 (a fast  one)\n"));
  EXPECT_THAT(Output(), HasSubstr("model hash   abab\n"));
  EXPECT_THAT(Output(), Not(HasSubstr("weights"))) << "they are not known";
  receipt.set_weights_sha256("cdcd");
  EXPECT_EQ(Run({"show", "job-1"}), 0);
  EXPECT_THAT(Output(), HasSubstr("weights hash cdcd\n"));
}

}  // namespace
}  // namespace kino::cli
