// The picker: decisions written as text (tests/cases/route/*.case), and properties over random pools.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "route/pick.h"

namespace baton::route {
namespace {

// ---- text cases
// ----------------------------------------------------------------------------------------------------------------- case NAME
//   config  decode=queue-scorer=1+prefix-cache-scorer=2 prefill=... picker=max-score decider=always|never|prefix non_cached=N ...
//   endpoint NAME role=decode host=10.0.0.1 waiting=1 running=2 kv=0.5 inflight=3 age=10 models=a+b down
//   sent NAME blocks=4          (the endpoint was sent the first 4 blocks of the prompt before)
//   request model=m tokens=640 blocks=40 subset=10.0.0.1+10.0.0.2 exclude=NAME
//   expect decode=NAME|a+b prefill=NAME|none why=... ranked=a,b error=NOT_FOUND message=text with_spaces
struct Line {
  std::string verb, name;
  std::map<std::string, std::string> fields;
  std::string where;
  int64_t number(const std::string& key, int64_t fallback) const {
    auto it = fields.find(key);
    return it == fields.end() ? fallback : std::stoll(it->second);
  }
  std::string text(const std::string& key, std::string fallback = "") const {
    auto it = fields.find(key);
    return it == fields.end() ? fallback : it->second;
  }
  bool has(const std::string& key) const { return fields.contains(key); }
};

std::vector<std::string> split(const std::string& text, char by) {
  std::vector<std::string> out;
  std::stringstream in(text);
  for (std::string part; std::getline(in, part, by);) out.push_back(part);
  return out;
}

struct Case {
  std::string name;
  std::vector<Line> lines;
};

std::vector<Case> load_cases() {
  std::vector<Case> cases;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(BATON_SOURCE_DIR "/tests/cases/route")) {
    if (entry.path().extension() == ".case") files.push_back(entry.path());
  }
  std::ranges::sort(files);
  for (const auto& path : files) {
    std::ifstream in(path);
    int number = 0;
    for (std::string raw; std::getline(in, raw);) {
      ++number;
      std::stringstream words(raw.substr(0, raw.find('#')));
      Line line;
      if (!(words >> line.verb)) continue;
      line.where = path.filename().string() + ":" + std::to_string(number);
      if (line.verb == "case") {
        words >> line.name;
        cases.push_back({line.name, {}});
        continue;
      }
      if (line.verb == "endpoint" || line.verb == "sent") words >> line.name;
      for (std::string word; words >> word;) {
        const size_t equals = word.find('=');
        line.fields[word.substr(0, equals)] = equals == std::string::npos ? "1" : word.substr(equals + 1);
      }
      cases.back().lines.push_back(line);
    }
  }
  return cases;
}

struct World {
  RouteConfig config = RouteConfig::defaults();
  std::vector<Endpoint> endpoints;
  std::vector<Load> loads;
  std::vector<std::string> names;
  std::vector<Line> sent;
  int index_of(const std::string& name) const {
    const auto it = std::ranges::find(names, name);
    return it == names.end() ? -1 : static_cast<int>(it - names.begin());
  }
  std::string name_of(int i) const { return i < 0 ? "none" : names[i]; }
};

void add_endpoint(World& world, const Line& line) {
  Endpoint endpoint;
  const int n = static_cast<int>(world.endpoints.size());
  endpoint.host = line.text("host", "10.0.0." + std::to_string(n + 1));
  endpoint.port = static_cast<int>(line.number("port", 8000));
  ASSERT_TRUE(role_from(line.text("role", "both"), endpoint.role)) << line.where;
  endpoint.slot = kEndpointsMax - 1 - n;  // not the index: whoever confuses the two fails
  if (line.has("models")) endpoint.models = split(line.text("models"), '+');
  endpoint.address = host_port(endpoint.host, endpoint.port);
  Load load{.healthy = !line.has("down"),
            .age_ms = line.number("age", 10),
            .waiting = static_cast<int>(line.number("waiting", 0)),
            .running = static_cast<int>(line.number("running", 0)),
            .kv_usage = std::stof(line.text("kv", "0")),
            .inflight_requests = static_cast<int>(line.number("inflight", 0)),
            .inflight_tokens = line.number("inflight_tokens", 0)};
  world.endpoints.push_back(endpoint);
  world.loads.push_back(load);
  world.names.push_back(line.name);
}

void configure(World& world, const Line& line) {
  auto profile = [&](const std::string& key, Profile& out) {
    if (!line.has(key)) return;
    std::string text = line.text(key);
    std::ranges::replace(text, '+', ',');
    auto parsed = parse_profile(text);
    ASSERT_TRUE(parsed) << line.where << ": " << parsed.error().message;
    out = *parsed;
  };
  profile("decode", world.config.decode);
  profile("prefill", world.config.prefill);
  if (line.has("decider")) {
    const std::string kind = line.text("decider");
    world.config.decider = kind == "never"    ? DeciderKind::kNever
                           : kind == "prefix" ? DeciderKind::kPrefixBased
                                              : DeciderKind::kAlways;
  }
  world.config.non_cached_tokens = line.number("non_cached", world.config.non_cached_tokens);
  world.config.prompt_tokens_min = line.number("prompt_min", world.config.prompt_tokens_min);
  world.config.stale_after_ms = line.number("stale_after", world.config.stale_after_ms);
  world.config.prefill_may_decode = line.number("prefill_may_decode", 1) != 0;
}

Result<Decision> decide(World& world, const Line& line, uint64_t seed) {
  ChainHasher hasher(1, line.text("model"), 64);
  const auto blocks = static_cast<size_t>(line.number("blocks", 0));
  std::string prompt(blocks * 64, ' ');
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<char>('a' + (i / 64 * 7 + i) % 26);
  hasher.feed(prompt);
  PrefixIndex index;
  for (const Line& sent : world.sent) {
    const auto n = std::min(hasher.chain().size(), static_cast<size_t>(sent.number("blocks", 0)));
    index.record(std::span(hasher.chain()).first(n), world.endpoints[world.index_of(sent.name)].slot);
  }
  RouteRequest request;
  const std::string model = line.text("model");
  request.model = model;
  request.chain = hasher.chain();
  request.prompt_tokens = line.number("tokens", static_cast<int64_t>(blocks) * 16);
  std::vector<std::string> subset = split(line.text("subset"), '+');
  request.subset_given = line.has("subset");
  request.subset = subset;
  for (const std::string& name : split(line.text("exclude"), '+')) request.excluded.set(world.index_of(name));
  Prng prng(seed);
  const PrefixMatch match = index.match(request.chain);
  return pick({world.endpoints, world.loads}, request, match, world.config, prng);
}

void expect(const World& world, const Line& line, const Result<Decision>& got, uint64_t seed) {
  const std::string at = line.where + " seed " + std::to_string(seed);
  if (line.has("error")) {
    ASSERT_FALSE(got) << at;
    EXPECT_EQ(code_name(got.error().code), line.text("error")) << at;
    return;
  }
  ASSERT_TRUE(got) << at << ": " << got.error().message;
  if (line.has("decode")) {
    EXPECT_THAT(split(line.text("decode"), '+'), testing::Contains(world.name_of(got->decode))) << at;
  }
  if (line.has("prefill")) {
    EXPECT_THAT(split(line.text("prefill"), '+'), testing::Contains(world.name_of(got->prefill))) << at;
  }
  if (line.has("why")) {
    EXPECT_EQ(why_name(got->why), line.text("why")) << at;
  }
  if (line.has("ranked")) {
    std::string ranked;
    for (uint16_t i : got->decode_ranked.all()) ranked += (ranked.empty() ? "" : ",") + world.names[i];
    EXPECT_EQ(ranked, line.text("ranked")) << at;
  }
  if (line.has("cached")) {
    EXPECT_EQ(got->decode_cached_tokens, line.number("cached", 0)) << at;
  }
}

TEST(RouteCases, DecideAsWritten) {
  const auto cases = load_cases();
  ASSERT_GE(cases.size(), 20u);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    World world;
    Line request;
    int expectations = 0;
    for (const Line& line : c.lines) {
      if (line.verb == "config") configure(world, line);
      if (line.verb == "endpoint") add_endpoint(world, line);
      if (line.verb == "sent") world.sent.push_back(line);
      if (line.verb == "request") request = line;
      if (line.verb == "expect") {
        ++expectations;
        for (uint64_t seed = 1; seed <= 8; ++seed) expect(world, line, decide(world, request, seed), seed);
      }
    }
    EXPECT_GT(expectations, 0) << "a case that expects nothing";
  }
}

// ---- properties
// -----------------------------------------------------------------------------------------------------------------

World random_world(Prng& prng, int endpoints) {
  World world;
  static constexpr DeciderKind kDeciders[] = {DeciderKind::kAlways, DeciderKind::kNever, DeciderKind::kPrefixBased};
  static constexpr PickerKind kPickers[] = {PickerKind::kMaxScore, PickerKind::kRandom, PickerKind::kWeightedRandom};
  world.config.decider = kDeciders[prng.below(3)];
  world.config.picker = kPickers[prng.below(3)];
  world.config.non_cached_tokens = prng.between(0, 200);
  for (const Scorer& scorer : scorers()) {
    if (prng.chance(0.5)) world.config.decode.push_back({&scorer, static_cast<float>(prng.uniform() * 3)});
  }
  for (int i = 0; i < endpoints; ++i) {
    Endpoint endpoint{.host = "10.0.0." + std::to_string(i), .port = 8000, .role = static_cast<Role>(prng.below(3)), .slot = i};
    if (prng.chance(0.3)) endpoint.models = {prng.chance(0.5) ? "a" : "b"};
    world.endpoints.push_back(endpoint);
    world.loads.push_back({.healthy = prng.chance(0.8),
                           .age_ms = prng.between(-1, 4000),
                           .waiting = static_cast<int>(prng.between(0, 50)),
                           .running = static_cast<int>(prng.between(0, 50)),
                           .kv_usage = static_cast<float>(prng.uniform()),
                           .inflight_requests = static_cast<int>(prng.between(0, 80)),
                           .inflight_tokens = prng.between(0, 1 << 20)});
    world.names.push_back(std::to_string(i));
  }
  return world;
}

TEST(RouteProperties, ChoosesOnlyWhatMayBeChosen) {
  for (uint64_t seed = 1; seed <= 4000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    World world = random_world(prng, static_cast<int>(prng.below(seed % 50 == 0 ? kEndpointsMax + 1 : 12)));
    RouteRequest request;
    request.model = prng.chance(0.5) ? "a" : "";
    request.prompt_tokens = prng.between(0, 1000);
    std::vector<std::string> subset;
    request.subset_given = prng.chance(0.3);
    for (const Endpoint& e : world.endpoints) {
      if (prng.chance(0.5)) subset.push_back(e.host + ":99");
    }
    request.subset = subset;
    for (size_t i = 0; i < world.endpoints.size(); ++i) request.excluded[i] = prng.chance(0.1);
    PrefixMatch match{};
    for (auto& m : match) m = static_cast<uint16_t>(prng.below(40));
    const std::vector<uint64_t> chain(40);
    request.chain = chain;
    auto usable = [&](int i) {
      const Endpoint& e = world.endpoints[i];
      const bool model_ok = request.model.empty() || e.models.empty() || e.models[0] == request.model;
      const bool subset_ok = !request.subset_given || std::ranges::find(subset, e.host + ":99") != subset.end();
      return world.loads[i].healthy && !request.excluded[i] && model_ok && subset_ok;
    };
    Prng a(seed), b(seed);
    const auto decision = pick({world.endpoints, world.loads}, request, match, world.config, a);
    const auto again = pick({world.endpoints, world.loads}, request, match, world.config, b);
    ASSERT_EQ(decision.has_value(), again.has_value());
    bool any = false;
    for (size_t i = 0; i < world.endpoints.size(); ++i) any |= usable(static_cast<int>(i));
    ASSERT_EQ(decision.has_value(), any) << "a request fails only when no worker could take it";
    if (!decision) continue;
    EXPECT_EQ(decision->decode, again->decode);
    EXPECT_EQ(decision->prefill, again->prefill);
    EXPECT_TRUE(usable(decision->decode));
    EXPECT_NE(decision->prefill, decision->decode);
    EXPECT_EQ(decision->prefill >= 0, decision->why == Why::kRemotePrefill);
    if (decision->prefill >= 0) {
      EXPECT_TRUE(usable(decision->prefill));
      EXPECT_NE(world.endpoints[decision->prefill].role, Role::kDecode);
      EXPECT_NE(world.endpoints[decision->decode].role, Role::kPrefill);
      EXPECT_NE(world.config.decider, DeciderKind::kNever);
    }
    std::set<int> seen;
    for (uint16_t i : decision->decode_ranked.all()) EXPECT_TRUE(usable(i) && seen.insert(i).second);
    EXPECT_EQ(decision->decode_ranked.all()[0], decision->decode);
  }
}

TEST(RouteProperties, ScoresStayInRange) {
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    Prng prng(seed);
    World world = random_world(prng, 1 + static_cast<int>(prng.below(20)));
    std::vector<uint16_t> all;
    for (size_t i = 0; i < world.endpoints.size(); ++i) all.push_back(static_cast<uint16_t>(i));
    PrefixMatch match{};
    for (auto& m : match) m = static_cast<uint16_t>(prng.below(41));
    const Snapshot snapshot{world.endpoints, world.loads};
    const ScoreInput input{.snapshot = snapshot,
                           .match = match,
                           .blocks_total = 40,
                           .prompt_tokens = 640,
                           .block_tokens = 16,
                           .stale_after_ms = 2000,
                           .candidates = all};
    for (const Scorer& scorer : scorers()) {
      std::vector<float> out(all.size(), -1);
      scorer.score(input, out);
      for (float s : out) EXPECT_TRUE(s >= 0 && s <= 1) << scorer.name << " gave " << s << ", seed " << seed;
    }
  }
}

TEST(RouteProperties, TiesAreSpreadEvenly) {
  World world;
  for (int i = 0; i < 4; ++i) {
    world.endpoints.push_back({.host = "h", .port = i, .role = Role::kDecode, .slot = i});
    world.loads.push_back({.age_ms = 0});
  }
  std::array<int, 4> count{};
  Prng prng(7);
  for (int i = 0; i < 4000; ++i) ++count[pick({world.endpoints, world.loads}, {}, {}, world.config, prng)->decode];
  for (int n : count) EXPECT_NEAR(n, 1000, 150);
}

TEST(RouteProperties, BurstBetweenTwoScrapesIsSpread) {
  World world;  // both report an empty queue and will not report again during the burst
  for (int i = 0; i < 2; ++i) {
    world.endpoints.push_back({.host = "h", .port = i, .role = Role::kDecode, .slot = i});
    world.loads.push_back({.age_ms = 50});
  }
  Prng prng(3);
  for (int i = 0; i < 100; ++i)
    ++world.loads[pick({world.endpoints, world.loads}, {}, {}, world.config, prng)->decode].inflight_requests;
  EXPECT_NEAR(world.loads[0].inflight_requests, 50, 1);
}

TEST(ParseProfile, RejectsWhatItDoesNotKnow) {
  EXPECT_EQ(profile_text(*parse_profile("queue-scorer=2,prefix-cache-scorer")), "queue-scorer=2,prefix-cache-scorer=1");
  EXPECT_FALSE(parse_profile("queue-scorer=x"));
  EXPECT_FALSE(parse_profile("queue-scorer=-1"));
  EXPECT_FALSE(parse_profile("queue-scorer=nan"));
  auto unknown = parse_profile("made-up-scorer");
  ASSERT_FALSE(unknown);
  EXPECT_THAT(unknown.error().message, testing::HasSubstr("prefix-cache-scorer"));
}

// ---- prefix index
// ---------------------------------------------------------------------------------------------------------------

TEST(ChainHasher, DependsOnEveryByteBeforeAndOnNoSplit) {
  std::string text(1000, 'x');
  Prng prng(5);
  for (char& c : text) c = static_cast<char>('a' + prng.below(26));
  ChainHasher whole(9, "m", 64);
  whole.feed(text);
  EXPECT_EQ(whole.chain().size(), 15u);  // full blocks only
  for (int round = 0; round < 50; ++round) {
    ChainHasher pieces(9, "m", 64);
    for (size_t at = 0; at < text.size();) {
      const size_t n = std::min<size_t>(prng.below(200), text.size() - at);
      pieces.feed(std::string_view(text).substr(at, n));
      at += n;
    }
    ASSERT_EQ(pieces.chain(), whole.chain()) << "round " << round;
  }
  std::string changed = text;
  changed[130] = '!';  // in block 2
  ChainHasher other(9, "m", 64);
  other.feed(changed);
  EXPECT_EQ(other.chain()[1], whole.chain()[1]);
  for (size_t i = 2; i < 15; ++i) EXPECT_NE(other.chain()[i], whole.chain()[i]);
  ChainHasher model(9, "n", 64), seed(8, "m", 64);
  model.feed(text);
  seed.feed(text);
  EXPECT_NE(model.chain()[0], whole.chain()[0]);
  EXPECT_NE(seed.chain()[0], whole.chain()[0]);
}

TEST(ChainHasher, BoundsTheChain) {
  ChainHasher hasher(1, "m", 4);
  hasher.feed(std::string(kPrefixBlocksMax * 4 + 100, 'x'));
  EXPECT_EQ(hasher.chain().size(), kPrefixBlocksMax);
  EXPECT_EQ(hasher.bytes(), kPrefixBlocksMax * 4 + 100);
}

// Against a plain model: per slot, the set of hashes it was sent.

TEST(Endpoint, WritesAddresses) {
  EXPECT_EQ(host_port("10.0.0.1", 8000), "10.0.0.1:8000");
  EXPECT_EQ(host_port("fe80::1", 8000), "[fe80::1]:8000");
  Role role;
  EXPECT_TRUE(role_from("prefill-decode", role));
  EXPECT_EQ(role, Role::kBoth);
  EXPECT_FALSE(role_from("driver", role));
}

}  // namespace
}  // namespace baton::route
