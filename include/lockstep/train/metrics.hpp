#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#pragma GCC visibility push(default)

namespace lockstep::train {

/// A list has a number for each of something, such as the ranks: std::vector{0.1, 0.2}.
using MetricValue = std::variant<std::int64_t, double, std::string, std::vector<double>>;

struct Metric {
  std::string name;
  MetricValue value;

  friend bool operator==(const Metric&, const Metric&) = default;
};

/// One line of a log: {{"step", 100}, {"loss", 0.412}, {"split", "train"}}
using MetricRecord = std::vector<Metric>;

enum class MetricsMode {
  create,  ///< begin anew; a file that is there is replaced
  resume,  ///< go on with the file that is there, or begin one
};

/// A file of records, for programs: the first line is {"schema": "lockstep.metrics", "version": 2},
/// and each line after it a JSON object with a record's names in their order. JSON has no NaN and
/// no infinity: they are written as null, and read back as NaN. docs/metrics.md describes the file,
/// and the names that mean something to a report.
///
/// Each line is written at once, so that it is there whatever becomes of the program. For one rank
/// and one thread. The file system's refusals are an Error that names the path and the reason.
class MetricsLog {
 public:
  /// DataError where a file to resume is not such a log, is of a later version, or is damaged. One of
  /// version 1, which had no lists, becomes one of version 2. A last line that the end of the program
  /// tore is dropped.
  explicit MetricsLog(const std::string& path, MetricsMode mode = MetricsMode::create);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  /// NameError for a name that is empty or comes twice. Where it throws, the file is as it was.
  void append(const MetricRecord& record);

  /// Drops the records whose number under `key` is greater than `value`, such as the steps after
  /// the one that was restored, by putting a new file in the place of the old one. Where it throws,
  /// the file is as it was.
  void keep_until(std::string_view key, double value);

 private:
  void open();

  std::string path_;
  int descriptor_ = -1;
};

/// The records of a log, without a torn last line. Errors as those of MetricsLog on resume; a
/// missing file is an Error.
std::vector<MetricRecord> read_metrics(const std::string& path);

/// Writes records to a CSV file (RFC 4180), which has its old contents or all of the new ones
/// whatever happens: a line of names, and a line a record. A name is a column, in the order of first
/// appearance; a list of two is the columns name.0 and name.1. What a record lacks, and numbers that
/// are not finite, are empty. Error, with path and reason, where it cannot be written.
void write_csv(const std::string& path, const std::vector<MetricRecord>& records);

}  // namespace lockstep::train

#pragma GCC visibility pop
