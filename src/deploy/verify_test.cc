// The checks over recorded objects: a right cluster passes them all; each case of tests/cases/deploy/wrong.txt is found by its
// check.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "base/file.h"
#include "deploy/checks.h"

namespace baton::deploy {
namespace {

using Verdict = CheckResult::Verdict;

std::string case_file(const char* name) {
  return read_file(cat(BATON_SOURCE_DIR, "/tests/cases/deploy/", name), 1 << 20).value();
}

std::vector<CheckResult> all_checks(const std::string& recorded) {
  const Cluster cluster = recorded_cluster(recorded, "llm-d-pd").value();
  std::vector<CheckResult> out = check_objects(cluster), more = check_traffic(cluster);
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

struct Case {
  std::string name, verdict, check, saw, advice;
  std::vector<std::pair<std::string, std::string>> changes;
};

std::string trim(std::string text) {
  while (text.starts_with(' ')) text.erase(0, 1);
  while (text.ends_with(' ')) text.pop_back();
  return text;
}

std::vector<Case> cases() {
  std::vector<Case> out;
  std::istringstream in(case_file("wrong.txt"));
  for (std::string line; std::getline(in, line);) {
    const std::string rest = line.size() > 2 ? line.substr(2) : "";
    if (line.starts_with("case "))
      out.push_back({.name = line.substr(5), .verdict = {}, .check = {}, .saw = {}, .advice = {}, .changes = {}});
    if (line.starts_with("- ")) out.back().changes.emplace_back(rest, "");
    if (line.starts_with("+ ")) out.back().changes.back().second = rest;
    if (!line.starts_with("= ")) continue;
    std::istringstream cells(rest);
    std::string first;
    std::getline(cells, first, '|');
    std::getline(cells, out.back().saw, '|');
    std::getline(cells, out.back().advice, '|');
    out.back().verdict = first.substr(0, 4);
    out.back().check = trim(first.substr(4));
    out.back().saw = trim(out.back().saw), out.back().advice = trim(out.back().advice);
  }
  return out;
}

TEST(DeployVerify, ARightClusterPassesEveryCheck) {
  const auto results = all_checks(case_file("right.json"));
  EXPECT_EQ(results.size(), 12u);
  const std::string screen = checks_screen("baton deploy verify", results, false);
  for (const CheckResult& r : results) EXPECT_EQ(r.verdict, Verdict::kOk) << screen;
  EXPECT_NE(screen.find("over ucx, 40 GB/s"), screen.npos) << screen;
  EXPECT_NE(screen.find("1 prefill, 1 decode"), screen.npos) << screen;
  EXPECT_LE(std::ranges::count(screen, '\n'), 24) << "one screen";
  EXPECT_TRUE(parse_json(checks_json(results)));
}

TEST(DeployVerify, EachFlawIsFoundByItsCheck) {
  const std::string right = case_file("right.json");
  const std::vector<Case> rows = cases();
  ASSERT_GT(rows.size(), 30u);
  for (const Case& row : rows) {
    SCOPED_TRACE(row.name);
    std::string wrong = right;
    for (const auto& [from, to] : row.changes) {
      ASSERT_NE(wrong.find(from), wrong.npos) << from;
      for (size_t at = 0; (at = wrong.find(from, at)) != wrong.npos; at += to.size()) wrong.replace(at, from.size(), to);
    }
    const auto results = all_checks(wrong);
    bool found = false;
    for (const CheckResult& r : results) {
      EXPECT_EQ(r.verdict == Verdict::kOk, r.advice.empty()) << r.name;
      if (r.name != row.check) continue;
      found = true;
      EXPECT_EQ(r.verdict, row.verdict == "FAIL" ? Verdict::kFailed : Verdict::kNote) << r.detail;
      EXPECT_NE(r.detail.find(row.saw), r.detail.npos) << r.detail;
      EXPECT_NE(r.advice.find(row.advice), r.advice.npos) << r.advice;
    }
    EXPECT_TRUE(found) << row.check;
  }
}

TEST(DeployVerify, AStackWithTheRoutersOwnDoorNeedsNoKinds) {
  Cluster cluster = recorded_cluster(case_file("right.json"), "baton").value();
  cluster.looks["groups"].json = *parse_json(R"({"groups":[]})");
  for (const char* gone : {"gateways", "httproutes", "inferencepools", "podmonitors", "servicemonitors"})
    cluster.looks[gone] = {404, "no such kind", {}};
  cluster.looks["services"].json =
      *parse_json(R"({"items":[{"metadata":{"name":"infra-pd-inference-gateway"},"spec":{"ports":[{"port":80}]}}]})");
  for (const CheckResult& r : check_objects(cluster)) EXPECT_EQ(r.verdict, Verdict::kOk) << r.name << ": " << r.detail;
  EXPECT_EQ(door_of(cluster).service, "infra-pd-inference-gateway");
}

TEST(DeployVerify, WithoutAnAnswerThereIsOneLine) {
  Cluster cluster;
  cluster.looks["groups"] = {0, "connection refused", {}};
  const auto results = check_objects(cluster);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].verdict, Verdict::kFailed);
  EXPECT_FALSE(recorded_cluster("[]", "ns"));
}

TEST(DeployVerify, ReadsSamplesOfAnyLabels) {
  const char* text = "a_total{x=\"1\",path=\"tcp\"} 2\na_total{path=\"shm\"} 3\na_total_more 9\na 7\n# a_total 5\n";
  EXPECT_EQ(sample_sum(text, "a_total"), 5);
  EXPECT_EQ(sample_sum(text, "a_total", "path=\"tcp\""), 2);
  EXPECT_EQ(sample_sum(text, "b"), std::nullopt);
}

}  // namespace
}  // namespace baton::deploy
