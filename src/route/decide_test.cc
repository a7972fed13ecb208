// decide(): decisions written as text (tests/cases/route/decide/*.case, see the README there).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "route/config.h"
#include "route/decide.h"
#include "route/test_world.h"

namespace baton::route {
namespace {

struct Asked {
  Result<Verdict> verdict = fail(Code::kUnknown, "not asked");
  std::vector<float> scores;
};

Asked ask(const World& w, const Plan& plan, const Fields& f, uint64_t seed) {
  const std::string model = word(f, "model");
  std::vector<std::string> subset = split(word(f, "subset"), '+');
  std::vector<std::pair<std::string, std::string>> held;
  for (const std::string& h : split(word(f, "header"), '+'))
    held.emplace_back(h.substr(0, h.find(':')), h.substr(h.find(':') + 1));
  std::vector<std::pair<std::string_view, std::string_view>> headers(held.begin(), held.end());
  Inquiry q;
  q.model = model;
  q.blocks_total = static_cast<size_t>(number(f, "blocks", 0));
  q.prompt_tokens = static_cast<int64_t>(number(f, "tokens", static_cast<double>(q.blocks_total) * 16));
  q.output_tokens = static_cast<int64_t>(number(f, "output", 0));
  q.match = &w.match;
  q.subset_given = f.contains("subset");
  q.subset = subset;
  for (const std::string& name : split(word(f, "exclude"), '+')) q.excluded.set(static_cast<size_t>(w.index_of(name)));
  q.remote_prefill_allowed = !f.contains("local_only");
  q.multimodal = f.contains("media");
  q.media_total = static_cast<int64_t>(number(f, "media", 0));
  q.media_matched = w.media;
  q.priority = static_cast<int>(number(f, "priority", 0));
  q.ttft_slo_ms = number(f, "ttft_slo", 0), q.tpot_slo_ms = number(f, "tpot_slo", 0);
  q.session_slot = w.session;
  q.cold_order = w.cold;
  q.headers = headers;
  Prng prng(seed);
  Asked out;
  out.scores.resize(w.endpoints.size());
  out.verdict = decide(w.snapshot(), q, plan, prng, out.scores);
  return out;
}

void expect(const World& w, const Fields& f, const Asked& got, const std::string& at) {
  if (f.contains("error")) {
    ASSERT_FALSE(got.verdict) << at;
    EXPECT_EQ(code_name(got.verdict.error().code), f.at("error")) << at;
    return;
  }
  ASSERT_TRUE(got.verdict) << at << ": " << got.verdict.error().message;
  const Verdict& v = *got.verdict;
  for (const auto& [key, stage] :
       {std::pair{"primary", &v.primary}, std::pair{"prefill", &v.prefill}, std::pair{"encode", &v.encode}}) {
    if (f.contains(key)) EXPECT_THAT(split(f.at(key), '|'), testing::Contains(w.name_of(*stage))) << at;
  }
  if (f.contains("why")) EXPECT_EQ(why_name(v.why), f.at("why")) << at;
  if (f.contains("port")) EXPECT_EQ(std::to_string(v.destination_port), f.at("port")) << at;
  if (f.contains("listed")) EXPECT_EQ(std::to_string(v.primary.listed), f.at("listed")) << at;
  if (f.contains("profile")) EXPECT_EQ(v.profile, f.at("profile")) << at;
  if (f.contains("cold")) EXPECT_EQ(std::to_string(v.cold), f.at("cold")) << at;
  if (f.contains("cached")) EXPECT_EQ(std::to_string(v.primary.cached_tokens), f.at("cached")) << at;
  if (f.contains("tail")) EXPECT_EQ(std::to_string(v.decode_tail_tokens), f.at("tail")) << at;
  if (f.contains("ranked")) {
    std::string ranked;
    for (uint16_t i : v.primary.ranked.all()) ranked += (ranked.empty() ? "" : ",") + w.names[i];
    EXPECT_EQ(ranked, f.at("ranked")) << at;
  }
}

void run_case(const std::string& name, const std::vector<std::string>& lines) {
  SCOPED_TRACE(name);
  World w;
  std::shared_ptr<const Plan> plan;
  Fields request;
  int expectations = 0;
  for (const std::string& raw : lines) {
    std::stringstream words(raw);
    std::string verb, first;
    words >> verb;
    const std::string at = name + ": " + raw;
    if (verb == "plugin") {
      words >> first;
      std::string rest;
      std::getline(words, rest);
      w.plugins += cat("- type: ", first, "\n") + (rest.empty() ? "" : cat("  parameters: ", rest, "\n"));
    } else if (verb == "profile") {
      words >> first;
      w.profiles += cat("- name: ", first, "\n  plugins:\n");
      for (std::string ref; words >> ref;) {
        const size_t equals = ref.find('=');
        w.profiles += cat("  - pluginRef: ", ref.substr(0, equals), "\n") +
                      (equals == std::string::npos ? "" : cat("    weight: ", ref.substr(equals + 1), "\n"));
      }
    } else if (verb == "endpoint") {
      words >> first;
      add_endpoint(w, first, fields_of(words));
    } else if (verb == "request") {
      request = fields_of(words);
    } else {
      ++expectations;
      if (!plan) {
        const Loaded loaded = load_config(w.text(), {.allow_experimental = true, .flow_control = false});
        ASSERT_TRUE(loaded.plan) << at << testing::PrintToString(loaded.errors) << w.text();
        plan = loaded.plan;
      }
      const Fields fields = fields_of(words);
      for (uint64_t seed = 1; seed <= 8; ++seed) {
        const Asked got = ask(w, *plan, request, seed);
        if (verb == "expect") {
          expect(w, fields, got, at + " seed " + std::to_string(seed));
        } else if (verb == "score") {
          for (const auto& [who, value] : fields)
            EXPECT_NEAR(got.scores[static_cast<size_t>(w.index_of(who))], std::stod(value), 1e-4) << at << " of " << who;
        } else {
          ADD_FAILURE() << "what is " << at << "?";
        }
      }
    }
  }
  EXPECT_GT(expectations, 0) << "a case that expects nothing";
}

TEST(DecideCases, AsWritten) {
  int cases = 0;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(BATON_SOURCE_DIR "/tests/cases/route/decide")) {
    if (entry.path().extension() == ".case") files.push_back(entry.path());
  }
  std::ranges::sort(files);
  for (const auto& path : files) {
    std::ifstream in(path);
    std::string name;
    std::vector<std::string> lines;
    auto flush = [&] {
      if (!name.empty()) run_case(path.filename().string() + ": " + name, lines), ++cases;
      lines.clear();
    };
    for (std::string raw; std::getline(in, raw);) {
      if (const size_t hash = raw.find('#'); hash != std::string::npos) raw.resize(hash);
      if (raw.find_first_not_of(' ') == std::string::npos) continue;
      if (raw.starts_with("case ")) {
        flush();
        name = raw.substr(5);
      } else {
        lines.push_back(raw);
      }
    }
    flush();
  }
  EXPECT_GE(cases, 40);
}

}  // namespace
}  // namespace baton::route
