#pragma once

#include <cstdint>
#include <functional>
#include <lockstep/autograd/parameter.hpp>
#include <lockstep/comm/communicator.hpp>
#include <map>
#include <optional>
#include <string>
#include <vector>

/// What the C++ programs of the benchmarks have in common. README.md explains the protocol.
namespace bench {

/// A measurement in the unit of its row, and that of the peer where the program measures it too.
struct Measurement {
  double value = 0;
  std::optional<double> peer = std::nullopt;
};

/// A case that is set up: measures for about that many seconds.
using Case = std::function<Measurement(double seconds)>;
using SetUp = std::function<Case()>;

/// Answers what the driver asks on stdin, until that is closed. Collective: every rank sets up and
/// measures every case; rank 0 reads and answers. OptionError for a case that is not there.
void serve(const lockstep::Communicator& ranks, const std::map<std::string, SetUp>& cases);

/// The median time of each call in seconds, of calls that take turns for about `seconds`, after one
/// turn that does not count. Their number is up to the clock of each rank: for calls that are not
/// collective.
std::vector<double> median_times(double seconds, const std::vector<std::function<void()>>& calls);

/// The same for calls that are collective: all ranks make as many of each, and get the times of rank
/// 0. Short ones are timed in batches.
std::vector<double> median_times(const lockstep::Communicator& ranks, double seconds,
                                 const std::vector<std::function<void()>>& calls);

/// All times of such calls, by call and turn; of each the longest of any rank. The same on all ranks.
std::vector<std::vector<double>> slowest_times(const lockstep::Communicator& ranks, double seconds,
                                               const std::vector<std::function<void()>>& calls);

double median(std::vector<double> values);

/// `count` parameters of `size` numbers each, N(0, 1).
std::vector<lockstep::NamedParameter> normal_parameters(
    std::int64_t count, std::int64_t size, lockstep::DType dtype = lockstep::DType::f32);

}  // namespace bench
