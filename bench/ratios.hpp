// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Ratios between cases of one run: how many times longer the median of another takes. The cases
// run interleaved (--benchmark_enable_random_interleaving=true), so that what disturbs the machine
// disturbs all of them.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace bench {

/// Which cases stand beside which, by their names.
class ratio_table {
 public:
  /// Case `name` gets a counter: seconds of `other` / its own.
  void add(std::string const& name, std::string const& counter, std::string const& other) {
    beside_[name].emplace_back(counter, other);
  }

  /// Adds the counters whose other case ran, too, to medians, or to runs that were not repeated.
  void fill(std::vector<benchmark::BenchmarkReporter::Run>& runs) const {
    std::map<std::string, double> seconds;
    for (auto const& run : runs)
      if (counts(run)) seconds[run.run_name.function_name] = run.counters.at("seconds").value;
    for (auto& run : runs) {
      auto const found = beside_.find(run.run_name.function_name);
      if (found == beside_.end() || !counts(run)) continue;
      for (auto const& [counter, other] : found->second)
        if (auto const its = seconds.find(other); its != seconds.end())
          run.counters[counter] = its->second / seconds[found->first];
    }
  }

 private:
  static bool counts(benchmark::BenchmarkReporter::Run const& run) {
    bool const whole = run.run_type == benchmark::BenchmarkReporter::Run::RT_Iteration
                           ? run.repetitions <= 1
                           : run.aggregate_name == "median";
    return whole && run.counters.count("seconds") > 0;
  }

  std::map<std::string, std::vector<std::pair<std::string, std::string>>> beside_;
};

/// Keeps what is reported until all cases have run, adds the ratios and hands it to Reporter, in
/// the order in which the cases were registered.
template <class Reporter>
class ratio_reporter : public benchmark::BenchmarkReporter {
 public:
  template <class... Arguments>
  explicit ratio_reporter(ratio_table const& table, Arguments... arguments)
      : table_(table), reporter_(arguments...) {}

  bool ReportContext(Context const& context) override {
    reporter_.SetOutputStream(&GetOutputStream());
    reporter_.SetErrorStream(&GetErrorStream());
    return reporter_.ReportContext(context);
  }
  void ReportRuns(std::vector<Run> const& runs) override {
    runs_.insert(runs_.end(), runs.begin(), runs.end());
  }
  void Finalize() override {
    table_.fill(runs_);
    std::map<std::int64_t, std::vector<Run>> families;
    for (auto const& run : runs_) families[run.family_index].push_back(run);
    for (auto const& [index, runs] : families) reporter_.ReportRuns(runs);
    reporter_.Finalize();
  }

 private:
  ratio_table const& table_;
  Reporter reporter_;
  std::vector<Run> runs_;
};

}  // namespace bench
