#include "server/command_line/address.h"

#include <gtest/gtest.h>

namespace kino::command_line {
namespace {

TEST(Address, LoopbackHosts) {
  for (const char* host : {"localhost", "LocalHost", "127.0.0.1", "127.255.0.3", "::1", "[::1]"}) {
    EXPECT_TRUE(IsLoopbackHost(host)) << host;
  }
  for (const char* host : {"", "128.0.0.1", "127.0.0", "127.0.0.1.example.org", "127.0.0.256",
                           "127.0.0.", "127.-1.0.1", "localhost.example.org", "::2", "0.0.0.0"}) {
    EXPECT_FALSE(IsLoopbackHost(host)) << host;
  }
}

TEST(Address, LocalTargetsInEveryFormOfGrpc) {
  for (const char* target :
       {"127.0.0.1:50051", "localhost:1", "localhost", "[::1]:50051", "::1", "dns:localhost:1",
        "dns:///localhost:1", "dns://8.8.8.8/127.0.0.1:1", "ipv4:127.0.0.1:1", "ipv6:[::1]:1",
        "unix:/run/kino", "unix:relative", "unix:///run/kino", "unix-abstract:kino"}) {
    EXPECT_TRUE(IsLocalTarget(target)) << target;
  }
  for (const char* target :
       {"example.org:50051", "10.0.0.1:1", "dns:///example.org:1", "dns://127.0.0.1/example.org:1",
        "dns://127.0.0.1", "ipv4:10.0.0.1:1", "ipv6:[::2]:1", "[fe80::1]:1", "fe80::1", ""}) {
    EXPECT_FALSE(IsLocalTarget(target)) << target;
  }
}

}  // namespace
}  // namespace kino::command_line
