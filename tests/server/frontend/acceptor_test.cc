// Connections as the acceptor takes, counts, closes and forgets them.
#include "server/frontend/acceptor/acceptor.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "tests/support/temp_dir.h"

namespace kino::frontend {
namespace {

// What a server does with connections: keeps them until they are ended.
class Server {
 public:
  explicit Server(std::unique_ptr<Acceptor> acceptor) : acceptor_(std::move(acceptor)) {
    acceptor_->Start([this](int fd) {
      absl::MutexLock lock(&mutex_);
      taken_.push_back(fd);
    });
  }
  ~Server() {
    acceptor_->Stop();
    EndAll();
  }
  // As gRPC ends them.
  void EndAll() {
    absl::MutexLock lock(&mutex_);
    for (const int fd : taken_) {
      shutdown(fd, SHUT_RDWR);
      close(fd);
    }
    taken_.clear();
  }
  // For what the acceptor's thread does with no event to wait for.
  void AwaitOpen(int count) {
    const absl::Time end = absl::Now() + absl::Seconds(60);
    while (acceptor_->open() != count && absl::Now() < end) absl::SleepFor(absl::Milliseconds(1));
    EXPECT_EQ(acceptor_->open(), count);
  }
  Acceptor& acceptor() { return *acceptor_; }

 private:
  const std::unique_ptr<Acceptor> acceptor_;
  absl::Mutex mutex_;
  std::vector<int> taken_ ABSL_GUARDED_BY(mutex_);
};

sockaddr_in Loopback(int last, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(0x7f000000U + static_cast<uint32_t>(last));
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

class Client {
 public:
  // From 127.0.0.LAST: all of 127/8 is this machine.
  explicit Client(int port, int last = 1) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    // Only ever reached by a failure.
    const timeval deadline{.tv_sec = 60, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof(deadline));
    const sockaddr_in from = Loopback(last, 0), to = Loopback(1, port);
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&from), sizeof(from)), 0);
    is_connected_ = connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0;
  }
  ~Client() { close(fd_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  bool is_connected() const { return is_connected_; }
  // Waits for the end.
  bool IsEnded() const {
    char byte = 0;
    const ssize_t got = read(fd_, &byte, 1);
    return got == 0 || (got < 0 && errno == ECONNRESET);
  }
  void CloseWithReset() const {
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  }
  std::string Name() const {
    sockaddr_in own{};
    socklen_t size = sizeof(own);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&own), &size);
    return "ipv4:127.0.0.1:" + std::to_string(ntohs(own.sin_port));
  }

 private:
  const int fd_;
  bool is_connected_ = false;
};

class AcceptorTest : public ::testing::Test {
 protected:
  void Serve(const AcceptorLimits& limits) {
    absl::StatusOr<std::unique_ptr<Acceptor>> acceptor = Acceptor::ListenTcp("127.0.0.1:0", limits);
    ASSERT_TRUE(acceptor.ok()) << acceptor.status();
    port_ = (*acceptor)->port();
    server_ = std::make_unique<Server>(*std::move(acceptor));
  }

  int port_ = 0;
  std::unique_ptr<Server> server_;
};

TEST_F(AcceptorTest, OneMoreThanTheLimitIsClosedUntilAnotherHasEnded) {
  Serve({.connections = 2, .connections_per_address = 2});
  const Client a(port_), b(port_);
  server_->AwaitOpen(2);
  const Client refused(port_, 2);
  EXPECT_TRUE(refused.IsEnded());
  EXPECT_EQ(server_->acceptor().open(), 2);
  server_->EndAll();
  EXPECT_TRUE(a.IsEnded());
  server_->AwaitOpen(0);
  const Client next(port_, 2);
  EXPECT_TRUE(next.is_connected());
  server_->AwaitOpen(1);
}

TEST_F(AcceptorTest, EachAddressHasItsOwnLimit) {
  Serve({.connections = 10, .connections_per_address = 1});
  const Client first(port_);
  server_->AwaitOpen(1);
  EXPECT_TRUE(Client(port_).IsEnded());
  const Client elsewhere(port_, 2);
  server_->AwaitOpen(2);
}

TEST_F(AcceptorTest, AConnectionThatItsClientHasResetIsForgottenForGood) {
  Serve({.connections = 1, .connections_per_address = 1});
  for (int i = 0; i < 20; ++i) {
    {
      const Client client(port_);
      server_->AwaitOpen(1);
      client.CloseWithReset();
    }
    // The server has not let go of its own descriptor: what epoll would tell of it must not be
    // taken for another connection's.
    server_->AwaitOpen(0);
  }
  const Client next(port_);
  server_->AwaitOpen(1);
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(Client(port_).IsEnded()) << "it counts as open";
}

TEST_F(AcceptorTest, CloseEndsTheConnectionOfThatNameOnce) {
  Serve({.connections = 10, .connections_per_address = 10});
  const Client one(port_), other(port_);
  server_->AwaitOpen(2);
  EXPECT_FALSE(server_->acceptor().Close("ipv4:127.0.0.1:1"));
  EXPECT_TRUE(server_->acceptor().Close(one.Name()));
  EXPECT_FALSE(server_->acceptor().Close(one.Name()));
  EXPECT_TRUE(one.IsEnded());
  server_->AwaitOpen(1);
}

TEST_F(AcceptorTest, StopClosesTheListenerAndLeavesWhatWasTaken) {
  Serve({.connections = 10, .connections_per_address = 10});
  const Client client(port_);
  server_->AwaitOpen(1);
  server_->acceptor().Stop();
  EXPECT_FALSE(Client(port_).is_connected());
  server_->EndAll();
  EXPECT_TRUE(client.IsEnded()) << "only now";
}

TEST_F(AcceptorTest, AddressesThatCannotBeListenedOnAreNamed) {
  Serve({});
  const std::string taken = "127.0.0.1:" + std::to_string(port_);
  const absl::Status status = Acceptor::ListenTcp(taken, {}).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_NE(status.message().find("'" + taken + "'"), std::string::npos) << status;
  for (const char* wrong : {"nowhere", "no such host:1", "127.0.0.1:port"})
    EXPECT_TRUE(absl::IsInvalidArgument(Acceptor::ListenTcp(wrong, {}).status())) << wrong;
  EXPECT_TRUE(absl::IsUnavailable(Acceptor::ListenTcp("192.0.2.1:0", {}).status()));
}

TEST_F(AcceptorTest, ANameListensOnAllItsAddressesWithOnePort) {
  const auto acceptor = Acceptor::ListenTcp("localhost:0", {.connections = 1});
  ASSERT_TRUE(acceptor.ok()) << acceptor.status();
  EXPECT_NE((*acceptor)->port(), 0);
  EXPECT_TRUE(Client((*acceptor)->port()).is_connected());
}

class UnixAcceptorTest : public ::testing::Test {
 protected:
  // Connects as that user, in a process of its own: 0: the connection stayed open, 1: it was ended.
  int ConnectAs(uid_t user) const {
    const pid_t child = fork();
    if (child == 0) {
      if (setuid(user) != 0) _exit(3);
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      std::strncpy(address.sun_path, path_.c_str(), sizeof(address.sun_path) - 1);
      const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
      if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) _exit(2);
      // What is refused ends; what is let in gets the server's byte.
      char byte = 0;
      _exit(read(fd, &byte, 1) == 1 ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  void Serve() {
    absl::StatusOr<std::unique_ptr<Acceptor>> acceptor =
        Acceptor::ListenUnix(path_, {.connections = 100});
    ASSERT_TRUE(acceptor.ok()) << acceptor.status();
    acceptor_ = *std::move(acceptor);
    acceptor_->Start([](int fd) {
      EXPECT_EQ(write(fd, "x", 1), 1);
      close(fd);
    });
  }

  kino::testing::TempDir folder_;
  const std::string path_ = folder_.path() + "/link.sock";
  std::unique_ptr<Acceptor> acceptor_;
};

TEST_F(UnixAcceptorTest, TakesTheSocketsPlaceForItsOwnUserAlone) {
  std::ofstream(path_) << "left over";
  Serve();
  struct stat info {};
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_TRUE(S_ISSOCK(info.st_mode));
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(ConnectAs(getuid()), 0);
}

TEST_F(UnixAcceptorTest, AnotherUsersProcessIsRefusedEvenWhereTheFileLetsItIn) {
  if (getuid() != 0) GTEST_SKIP() << "needs root, to be another user";
  Serve();
  ASSERT_EQ(chmod(path_.c_str(), 0666), 0);
  ASSERT_EQ(chmod(folder_.path().c_str(), 0755), 0);
  EXPECT_EQ(ConnectAs(65534), 1);
  EXPECT_EQ(ConnectAs(0), 0);
}

TEST_F(UnixAcceptorTest, APathThatIsTooLongIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(Acceptor::ListenUnix(std::string(200, 'a'), {}).status()));
  EXPECT_TRUE(absl::IsUnavailable(Acceptor::ListenUnix("/no/such/folder/socket", {}).status()));
}

}  // namespace
}  // namespace kino::frontend
