#include "server/convert/trace_context.h"

#include <gtest/gtest.h>

#include <string>

namespace kino::convert {
namespace {

const std::string kParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceContextTest, TakesVersion00AndLaterOnesThatBeginAlike) {
  for (const std::string& good :
       {kParent, "cc" + kParent.substr(2), "01" + kParent.substr(2) + "-more"})
    EXPECT_TRUE(IsTraceparent(good)) << good;
}

TEST(TraceContextTest, RefusesWhatTheStandardCallsInvalid) {
  const std::string trace = "4bf92f3577b34da6a3ce929d0e0e4736", parent = "00f067aa0ba902b7";
  for (const std::string& bad : {
           std::string(),
           kParent.substr(1),
           kParent + "-more",
           kParent + "0",
           "cc" + kParent.substr(2) + "more",
           "ff" + kParent.substr(2),
           "0g" + kParent.substr(2),
           "00_" + kParent.substr(3),
           "00-" + std::string(32, '0') + "-" + parent + "-01",
           "00-" + trace + "-" + std::string(16, '0') + "-01",
           "00-" + trace + "-" + parent + "-0x",
           "00-" + trace + "-" + parent + "_01",
           "00-4BF92F3577B34DA6A3CE929D0E0E4736-" + parent + "-01",
       })
    EXPECT_FALSE(IsTraceparent(bad)) << bad;
}

TEST(TraceContextTest, LogsNameTheTrace) {
  v1::GenerateRequest request;
  EXPECT_EQ(TraceForLog(request), "");
  request.set_traceparent(kParent);
  EXPECT_EQ(TraceForLog(request), ", trace 4bf92f3577b34da6a3ce929d0e0e4736");
}

}  // namespace
}  // namespace kino::convert
