#pragma once

#include <gtest/gtest.h>

#include <exception>
#include <regex>
#include <string>
#include <string_view>
#include <typeinfo>

namespace lockstep::testing {

/// A message without the host that is named behind a rank where a communicator has several: "no file (rank 1)".
inline std::string without_host(const std::string& message) {
  static const std::regex rank_and_host(R"(\(rank (\d+) on [^)]+\))");
  return std::regex_replace(message, rank_and_host, "(rank $1)");
}

/// Whether `call` throws an E, and nothing derived from it, whose message contains every part, without_host:
/// EXPECT_TRUE(throws<ShapeError>([&] { tensor.rows(0, 9); }, "rows 0 to 9", "(3, 2)"));
template <class E, class Call, class... Parts>
::testing::AssertionResult throws(Call&& call, const Parts&... parts) {
  try {
    call();
  } catch (const std::exception& error) {
    const std::string message = without_host(error.what());
    if (typeid(error) != typeid(E)) {
      return ::testing::AssertionFailure() << "threw another type, saying: " << message;
    }
    for (const std::string_view part : {std::string_view(), std::string_view(parts)...}) {
      if (message.find(part) == std::string::npos) {
        return ::testing::AssertionFailure() << "no '" << part << "' in: " << message;
      }
    }
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure() << "threw nothing";
}

}  // namespace lockstep::testing
