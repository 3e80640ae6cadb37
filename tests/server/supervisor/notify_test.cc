#include "server/supervisor/notify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"

namespace kino::supervisor {
namespace {

// In the manager's place. `address` is as in $NOTIFY_SOCKET.
class NotifyTest : public testing::Test {
 protected:
  void TearDown() override {
    for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) unsetenv(name);
    if (address_.front() == '/') unlink(address_.c_str());
  }

  Notifier Listen(const std::string& address) {
    address_ = address;
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    address.copy(name.sun_path, sizeof(name.sun_path));
    if (address[0] == '@') name.sun_path[0] = 0;
    manager_ = Fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(bind(manager_.get(), reinterpret_cast<const sockaddr*>(&name),
                   static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size())),
              0);
    setenv("NOTIFY_SOCKET", address.c_str(), 1);
    return Notifier::TakeFromEnvironment();
  }

  std::string Received() {
    char buffer[256];
    const ssize_t size = recv(manager_.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
    return size < 0 ? "nothing" : std::string(buffer, static_cast<size_t>(size));
  }

  std::string address_ = "@";
  Fd manager_;
};

TEST_F(NotifyTest, LinesReachASocketWithAPath) {
  const Notifier notifier = Listen(absl::StrCat(testing::TempDir(), "notify.", getpid()));
  ASSERT_TRUE(notifier.is_on());
  EXPECT_TRUE(notifier.Send("READY=1\nSTATUS=serving").ok());
  EXPECT_EQ(Received(), "READY=1\nSTATUS=serving");
  EXPECT_EQ(Received(), "nothing");
}

TEST_F(NotifyTest, LinesReachAnAbstractSocket) {
  const Notifier notifier = Listen(absl::StrCat("@kino-notify-test-", getpid()));
  EXPECT_TRUE(notifier.Send("STOPPING=1").ok());
  EXPECT_EQ(Received(), "STOPPING=1");
}

TEST_F(NotifyTest, VariablesAreGoneOnceTheyAreTaken) {
  setenv("WATCHDOG_USEC", "3000000", 1);
  setenv("WATCHDOG_PID", absl::StrCat(getpid()).c_str(), 1);
  const Notifier notifier = Listen(absl::StrCat("@kino-notify-test-", getpid()));
  EXPECT_EQ(notifier.watchdog(), absl::Seconds(3));
  for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) {
    EXPECT_EQ(getenv(name), nullptr) << name;
  }
  EXPECT_FALSE(Notifier::TakeFromEnvironment().is_on());
}

TEST_F(NotifyTest, WatchdogOfAnotherProcessIsNotOurs) {
  setenv("WATCHDOG_USEC", "3000000", 1);
  setenv("WATCHDOG_PID", "1", 1);
  const Notifier notifier = Listen(absl::StrCat("@kino-notify-test-", getpid()));
  EXPECT_TRUE(notifier.is_on());
  EXPECT_EQ(notifier.watchdog(), absl::InfiniteDuration());
}

TEST_F(NotifyTest, AddressThatIsNoneTurnsItOff) {
  const std::string too_long = "/" + std::string(sizeof(sockaddr_un::sun_path), 'a');
  for (const std::string& address : {std::string("vsock:2:1"), std::string("@"), too_long}) {
    setenv("NOTIFY_SOCKET", address.c_str(), 1);
    EXPECT_FALSE(Notifier::TakeFromEnvironment().is_on()) << address;
  }
}

TEST_F(NotifyTest, ManagerThatDoesNotReadIsNotWaitedFor) {
  const Notifier notifier = Listen(absl::StrCat("@kino-notify-test-", getpid()));
  absl::Status sent;
  for (int i = 0; i < 1'000'000 && sent.ok(); ++i) sent = notifier.Send("WATCHDOG=1");
  EXPECT_TRUE(absl::IsUnavailable(sent));
  while (Received() != "nothing") {
  }
  EXPECT_TRUE(notifier.Send("READY=1").ok());
  manager_.Reset();
  EXPECT_TRUE(absl::IsUnavailable(notifier.Send("READY=1")));
}

}  // namespace
}  // namespace kino::supervisor
