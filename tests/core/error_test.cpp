#include "lockstep/core/error.hpp"

#include <cstdint>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>

#include "lockstep/core/checked_cast.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace error_test {

template <class E>
class ErrorKinds : public ::testing::Test {};
using AllErrors = ::testing::Types<Error, ShapeError, DTypeError, NameError, OptionError,
                                   StateError, DataError, CheckpointError, MpiError>;
TYPED_TEST_SUITE(ErrorKinds, AllErrors);

// What another rank would throw after it received the report of `thrown`.
template <class E>
ErrorReport report_of(const E& thrown) {
  try {
    throw thrown;
  } catch (...) {
    return describe_current_exception();
  }
}

TYPED_TEST(ErrorKinds, keep_type_and_message_on_the_way_through_a_report) {
  const TypeParam thrown("expected 3, found 4");
  EXPECT_FALSE(thrown.collective());
  const ErrorReport report = report_of(thrown);
  EXPECT_EQ(report.kind, thrown.kind());
  try {
    throw_collective(report);
    FAIL() << "throw_collective returned";
  } catch (const TypeParam& received) {
    EXPECT_STREQ(received.what(), "expected 3, found 4");
    EXPECT_EQ(received.kind(), thrown.kind());
    EXPECT_TRUE(received.collective());
    EXPECT_EQ(typeid(received), typeid(TypeParam));
  }
}

TEST(ErrorReport, describes_exceptions_that_are_not_ours) {
  EXPECT_EQ(report_of(std::runtime_error("no such file")).message, "no such file");
  EXPECT_EQ(report_of(std::bad_alloc()).message, "out of memory");
  EXPECT_EQ(report_of(7).message, "an exception that is not a std::exception");
  EXPECT_EQ(report_of(7).kind, ErrorKind::other);
}

TEST(ErrorReport, of_a_kind_from_a_newer_version_is_thrown_as_an_error) {
  EXPECT_THROW(throw_collective({static_cast<ErrorKind>(200), "new"}), Error);
}

TEST(CheckedCast, passes_values_that_fit) {
  EXPECT_EQ(checked_cast<std::int8_t>(127, "n"), 127);
  EXPECT_EQ(checked_cast<std::int64_t>(std::numeric_limits<std::int64_t>::min(), "n"),
            std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(checked_cast<std::uint8_t>(255, "n"), 255);
  EXPECT_EQ(checked_cast<int>(std::size_t{1} << 30, "n"), 1 << 30);
}

TEST(CheckedCast, names_what_does_not_fit) {
  EXPECT_THROW(checked_cast<std::int8_t>(128, "n"), OptionError);
  EXPECT_THROW(checked_cast<std::size_t>(-1, "n"), OptionError);
  EXPECT_THROW(checked_cast<std::int64_t>(std::numeric_limits<std::uint64_t>::max(), "n"),
               OptionError);
  try {
    checked_cast<int>(std::int64_t{1} << 31, "number of elements");
    FAIL() << "2^31 passed as an int";
  } catch (const OptionError& error) {
    EXPECT_STREQ(error.what(), "number of elements: 2147483648 does not fit in 32 bits");
  }
}

}  // namespace error_test
}  // namespace lockstep
