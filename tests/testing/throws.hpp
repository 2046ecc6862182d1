#pragma once

#include <gtest/gtest.h>

#include <exception>
#include <string>
#include <string_view>
#include <typeinfo>

namespace lockstep::testing {

/// Whether `call` throws an E, and nothing derived from it, whose message contains every part:
/// EXPECT_TRUE(throws<ShapeError>([&] { tensor.rows(0, 9); }, "rows 0 to 9", "(3, 2)"));
template <class E, class Call, class... Parts>
::testing::AssertionResult throws(Call&& call, const Parts&... parts) {
  try {
    call();
  } catch (const std::exception& error) {
    const std::string message = error.what();
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
