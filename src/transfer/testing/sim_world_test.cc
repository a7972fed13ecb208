// The simulated world: nodes that start and die, time, and what their engines would ask of them. Checks are in sim_check_test.cc.
#include "transfer/testing/sim.h"

#include <algorithm>
#include <cstring>

namespace baton::transfer::testing {
namespace {

constexpr int kPort0 = 20'000;
constexpr int64_t kFreshMs = 200;  // so soon after an offer its lease is no question
constexpr int64_t kStepMsMax = 20;
constexpr size_t kStoryLines = 60;

}  // namespace

uint64_t sim_word(uint64_t seed, int32_t index, size_t word) { return Prng::at(seed, static_cast<uint64_t>(index) << 16 | word); }

bool is_block_of(std::span<const std::byte> bytes, const SimPrompt& p, int32_t index) {
  for (size_t w = 0; w * 8 < bytes.size(); ++w) {
    auto word = sim_word(p.seed, index, w);
    if (std::memcmp(bytes.data() + w * 8, &word, 8) != 0) return false;
  }
  return true;
}

Sim::Sim(uint64_t seed, bool trace) : prng(seed), trace_(trace), net_(clock_, prng, *this) {
  clock_.advance_ms(1000);
  transport_ = prng.chance(0.5) ? "tcp" : "auto";
  auto count = static_cast<size_t>(prng.between(2, 4));
  nodes_.resize(count);
  disturbed_ms_.assign(count, std::vector<int64_t>(count, 0));
  for (size_t i = 0; i < count; ++i) {
    nodes_[i].number = static_cast<int>(i);
    start(nodes_[i]);
  }
}

Sim::~Sim() {
  for (auto& n : nodes_) n.node.reset();
}

void Sim::note(std::string what) {
  if (trace_) std::printf("%6d %8lld ms  %s\n", step_, static_cast<long long>(now_ms()), what.c_str());
  story_.push_back(cat("step ", step_, " at ", now_ms(), " ms: ", what));
  if (story_.size() > kStoryLines) story_.pop_front();
}

std::string Sim::story() const {
  std::string out = cat(nodes_.size(), " nodes, transport ", transport_, "\n");
  for (const auto& line : story_) out += line + "\n";
  return out;
}

void Sim::violation(std::string what) {
  note(cat("VIOLATION: ", what));
  if (failure_.empty()) failure_ = cat("step ", step_, ": ", what);
}

// --- time and turns

void Sim::run(int steps) {
  int total = 0;
  for (const auto& op : sim_operations()) total += op.weight;
  for (step_ = 1; step_ <= steps && failure_.empty(); ++step_) {
    auto at = static_cast<int>(prng.below(static_cast<uint64_t>(total)));
    for (const auto& op : sim_operations()) {
      if ((at -= op.weight) >= 0) continue;
      op.run(*this);
      break;
    }
    clock_.advance_ms(prng.between(0, 4));
    turn_all();
  }
  if (failure_.empty()) finish();
}

void Sim::turn_all() {
  net_.pump();
  before_ms_ = std::exchange(turned_ms_, now_ms());
  auto first = prng.below(nodes_.size());
  for (size_t i = 0; i < nodes_.size(); ++i) turn(nodes_[(first + i) % nodes_.size()]);
}

void Sim::turn(SimNode& n) {
  if (!n.node || n.frozen) return;
  n.node->turn();
  poll(n);
  check_time(n);
}

void Sim::advance(int64_t ms) { clock_.advance_ms(ms); }

void Sim::quiet_turn() {
  if (!failure_.empty()) return;
  ++step_;
  advance(10);
  turn_all();
}

// An engine looks at what became of its grants when its step is done, and may have asked for more of one meanwhile.
void Sim::poll(SimNode& n) {
  std::vector<Event> events;
  if (prng.chance(0.2) || now_ms() > n.late_since_ms + kStepMsMax) events = std::exchange(n.late, {});
  for (auto& e : n.node->poll()) {
    auto g = n.grants.find(e.request);
    bool promise = g != n.grants.end() && g->second->push == SimGrant::Push::kComputing;
    bool of_fetch = e.kind == Event::Kind::kFetched || e.kind == Event::Kind::kCompletion;
    bool later = !of_fetch && (!n.late.empty() || (promise && prng.chance(0.3)));
    if (later && n.late.empty()) n.late_since_ms = now_ms();
    (later ? n.late : events).push_back(std::move(e));
  }
  for (const auto& e : events) on_event(n, e);
}

// What a machine's pause, or a step of its clock, does to everybody at once.
void Sim::jump(int64_t ms) {
  note(cat("time jumps ", ms, " ms"));
  clock_.advance_ms(ms);
  for (auto& n : nodes_) {
    n.woken_ms = now_ms();
    disturb_node(n.number);
  }
}

void Sim::disturb_node(int number) {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    disturbed(number, static_cast<int>(i));
    disturbed(static_cast<int>(i), number);
  }
}

// --- nodes

Result<Fd> Sim::dial(int consumer, const Address& to) {
  int port = to.bytes[2] << 8 | to.bytes[3];  // sockaddr_in
  auto number = static_cast<size_t>(port - kPort0);
  if (number >= nodes_.size() || !nodes_[number].node) return fail(Code::kUnavailable, "connection refused");
  auto [consumers, producers] = net_.connect(consumer, static_cast<int>(number));
  nodes_[number].node->adopt(std::move(producers));
  return std::move(consumers);
}

std::vector<std::string> Sim::addresses(int but) {
  std::vector<std::string> out;
  for (const auto& n : nodes_) {
    if (n.number != but) out.push_back(cat("127.0.0.1:", kPort0 + n.number));
  }
  return out;
}

void Sim::start(SimNode& n) {
  note(cat("node ", n.number, " starts"));
  auto pool = PoolMemory::create(layout_.block_bytes() * kSimBlocks, "baton-sim-kv");
  BATON_CHECK(pool.has_value());
  n.pool = std::make_unique<PoolMemory>(*std::move(pool));
  n.metrics = std::make_unique<Metrics>();
  n.offered_free.clear(), n.target_free.clear();
  for (int32_t b = 0; b < kSimBlocks; ++b) (b < kSimBlocks / 2 ? n.offered_free : n.target_free).push_back(b);
  for (auto b : n.target_free) std::memset(block(n, b).data(), 0x11, layout_.block_bytes());
  NodeOptions o;
  o.engine_id = cat("engine-", n.number);
  o.port = kPort0 + n.number;
  o.peers = addresses(n.number);
  o.transport = transport_;
  o.lease_ms = kSimLeaseMs;
  o.fetch_timeout_ms = kSimFetchTimeoutMs;
  o.chunk_bytes = 2 * layout_.block_bytes();
  o.secret = "s3cret";
  Surroundings around{.clock = clock_,
                      .dial = [this, i = n.number](const Address& to) { return dial(i, to); },
                      .random =
                          [this](std::span<unsigned char> out) {
                            for (auto& b : out) b = static_cast<unsigned char>(prng.next());
                          },
                      .probe_bytes = 4096};
  auto node = drive(std::move(o), layout_, *n.pool, *n.metrics, std::move(around));
  BATON_CHECK(node.has_value());
  n.node = *std::move(node);
  n.frozen = n.draining = false;
  n.woken_ms = now_ms();
  disturb_node(n.number);
}

// kill -9: nobody hears of its grants and fetches any more.
void Sim::kill(SimNode& n) {
  note(cat("node ", n.number, " dies"));
  n.node.reset();
  auto text = n.metrics->text();
  for (size_t at = 0; (at = text.find("\nkv_", at)) != text.npos; ++at) {
    auto line = text.substr(at + 1, text.find('\n', at + 1) - at - 1);
    bool gauge = line.starts_with("kv_grants{") || line.starts_with("kv_retained_bytes");
    if (gauge && !line.ends_with(" 0.0")) violation(cat("after the end of its node: ", line));
  }
  for (auto& [id, g] : n.grants) g->ended = true;
  n.grants.clear();
  n.prompts.clear();
  n.late.clear();
  for (auto& [id, f] : n.fetches) f.grant->claimed_ms = now_ms();
  n.fetches.clear();
  for (auto& other : nodes_) {
    for (auto& [id, g] : other.grants) {
      if (g->held_by == n.number) g->held_by = -1, g->claimed_ms = now_ms();
    }
  }
  disturb_node(n.number);
}

void Sim::freeze(SimNode& n, bool frozen) {
  note(cat("node ", n.number, frozen ? " is stopped" : " goes on"));
  n.frozen = frozen;
  n.woken_ms = now_ms();
  disturb_node(n.number);
}

SimNode* Sim::random_up() { return other_up(-1); }
SimNode* Sim::other_up(int than) {
  auto& n = nodes_[prng.below(nodes_.size())];
  return n.node && !n.frozen && n.number != than ? &n : nullptr;
}

bool Sim::connected(const SimNode& from, int to) {
  auto address = cat("127.0.0.1:", kPort0 + to);
  for (const auto& p : from.node->peers()) {
    if (p.address == address) return p.state == "connected";
  }
  return false;
}

// --- what engines do

std::span<std::byte> Sim::block(const SimNode& n, int32_t b) const {
  return n.pool->bytes().subspan(static_cast<size_t>(b) * layout_.block_bytes(), layout_.block_bytes());
}

void Sim::write_prompt(SimNode& n, const SimPrompt& p, size_t from, size_t to) {
  for (size_t i = from; i < to; ++i) {
    auto bytes = block(n, p.blocks[i]);
    for (size_t w = 0; w * 8 < bytes.size(); ++w) {
      auto word = sim_word(p.seed, static_cast<int32_t>(i), w);
      std::memcpy(bytes.data() + w * 8, &word, 8);
    }
  }
}

// From the end of the list: what was freed last is used again first.
std::vector<int32_t> Sim::take_blocks(SimNode& n, size_t count) {
  std::vector<int32_t> out(n.offered_free.end() - static_cast<ptrdiff_t>(count), n.offered_free.end());
  n.offered_free.resize(n.offered_free.size() - count);
  return out;
}

std::shared_ptr<SimPrompt> Sim::new_prompt(size_t blocks) {
  auto p = std::make_shared<SimPrompt>();
  p->seed = prng.next();
  std::memcpy(p->digest.data(), &p->seed, sizeof p->seed);
  p->n_tokens = static_cast<int32_t>(blocks) * layout_.block_tokens - static_cast<int32_t>(prng.below(16));
  return p;
}

// The engine reuses freed blocks at once, and writes into them.
void Sim::forget_prompt(SimNode& n, const std::shared_ptr<SimPrompt>& p) {
  for (auto b : p->blocks) {
    std::memset(block(n, b).data(), 0xDD, layout_.block_bytes());
    n.offered_free.push_back(b);
  }
  std::erase(n.prompts, p);
}

void Sim::offer(SimNode& n) {
  std::shared_ptr<SimPrompt> prompt;
  if (!n.prompts.empty() && prng.chance(0.25)) {
    prompt = n.prompts[prng.below(n.prompts.size())];
  } else {
    auto want = static_cast<size_t>(prng.between(1, 12));
    if (n.offered_free.size() < want) return;
    prompt = new_prompt(want);
    prompt->blocks = take_blocks(n, want);
    write_prompt(n, *prompt, 0, want);
    n.prompts.push_back(prompt);
  }
  auto g = std::make_shared<SimGrant>();
  g->request = next_request_++;
  g->producer = n.number;
  g->prompt = prompt;
  ++prompt->grants;
  g->offered_ms = g->claimed_ms = now_ms();
  g->grant = n.node->offer({g->request, prompt->blocks, prompt->n_tokens, prompt->digest});
  note(cat("node ", n.number, " offers ", g->request, ", ", prompt->blocks.size(), " blocks"));
  tokens_[*token_from(g->grant.token)] = g;
  n.grants.emplace(g->request, g);
  ++counts.offers;
}

std::shared_ptr<SimGrant> Sim::random_grant() {
  auto& n = nodes_[prng.below(nodes_.size())];
  if (n.grants.empty()) return nullptr;
  return std::next(n.grants.begin(), static_cast<ptrdiff_t>(prng.below(n.grants.size())))->second;
}

SimFetch* Sim::random_fetch() {
  auto& n = nodes_[prng.below(nodes_.size())];
  if (n.frozen || n.fetches.empty()) return nullptr;
  return &std::next(n.fetches.begin(), static_cast<ptrdiff_t>(prng.below(n.fetches.size())))->second;
}

void Sim::claim(SimGrant& g, int by) {
  if (g.consumer >= 0 && g.consumer != by) g.shared = true;
  g.consumer = by;
  g.claimed_ms = now_ms();
}

void Sim::hold(SimGrant& g, SimNode& by) {
  bool push = g.push != SimGrant::Push::kNo;  // whose reader comes with its request
  if (push || g.held_by >= 0 || g.fetched > 0 || g.declined || by.number == g.producer) return;
  claim(g, by.number);
  g.held_by = by.number;
  g.held_ms = now_ms();
  g.hold_sure = !g.shared && now_ms() - g.offered_ms < kFreshMs && connected(by, g.producer);
  note(cat("node ", by.number, " holds ", g.request));
  by.node->hold(g.grant);
}

void Sim::decline(SimGrant& g, SimNode& by) {
  if (by.number == g.producer) return;
  note(cat("node ", by.number, " declines ", g.request));
  g.declined = true;
  if (g.held_by == by.number) g.held_by = -1;
  g.claimed_ms = now_ms();
  by.node->decline(g.grant);
}

SimFetch Sim::build_fetch(std::shared_ptr<SimGrant> g, const SimNode& by) {
  auto bt = layout_.block_tokens;
  SimFetch f;
  f.request = next_request_++;
  f.consumer = by.number;
  f.started_ms = f.progress_ms = now_ms();
  // The whole, or what another cache did not have: a tail that begins at a block.
  auto count = static_cast<int32_t>(blocks_of(g->prompt->n_tokens));
  f.first_token = prng.chance(0.3) ? bt * static_cast<int32_t>(prng.below(static_cast<uint64_t>(count))) : 0;
  f.n_tokens = g->prompt->n_tokens - f.first_token;
  // Whoever has the answer of a prefill that completed may also fetch as if nothing had been promised.
  f.push = g->push != SimGrant::Push::kNo && (g->push != SimGrant::Push::kComplete || prng.chance(0.8));
  f.grant = std::move(g);
  return f;
}

// What must come of it, as far as that is sure already.
void Sim::expect(SimFetch& f, bool twisted) {
  auto& g = *f.grant;
  const auto& producer = nodes_[static_cast<size_t>(g.producer)];
  bool foreign = g.held_by >= 0 && g.held_by != f.consumer && g.hold_sure && !g.shared && now_ms() - g.held_ms > kFreshMs &&
                 calm(g.held_by, g.producer, g.held_ms);
  f.must_fail = twisted || foreign || g.ended || g.dead || g.opened > 0;
  bool held = g.held_by == f.consumer && g.hold_sure && calm(f.consumer, g.producer, g.held_ms);
  bool mine = g.fetched == 0 && !g.shared && (g.consumer == -1 || g.consumer == f.consumer);
  f.must_succeed = !f.must_fail && mine && alive(g, held) && producer.node && !producer.draining &&
                   connected(nodes_[static_cast<size_t>(f.consumer)], g.producer) && calm(f.consumer, g.producer, now_ms());
}

bool Sim::alive(const SimGrant& g, bool held) const {
  if (g.ended || g.released || g.declined) return false;
  if (g.push == SimGrant::Push::kNo) return held || now_ms() - g.offered_ms < kFreshMs;
  return g.refused_by == 0 && (g.push != SimGrant::Push::kComplete || now_ms() - g.completed_ms < kFreshMs);
}

SimFetch* Sim::fetch(std::shared_ptr<SimGrant> g, SimNode& by, void (*twist)(Fetch&, Sim&)) {
  if (by.number == g->producer || !by.node) return nullptr;
  auto f = build_fetch(g, by);
  if (f.n_tokens <= 0) return nullptr;
  Fetch ask{.request = f.request,
            .grant = g->push != SimGrant::Push::kNo && !f.push ? g->promised : g->grant,
            .prompt_digest = g->prompt->digest,
            .first_token = f.first_token,
            .n_tokens = f.n_tokens,
            .blocks = {},
            .push = f.push};
  if (twist != nullptr) twist(ask, *this);
  f.token = *token_from(ask.grant.token);
  auto want = blocks_of(ask.n_tokens);
  if (by.target_free.size() < want) return nullptr;
  check_poison(by);
  f.n_tokens = ask.n_tokens;
  f.blocks.assign(by.target_free.begin(), by.target_free.begin() + static_cast<ptrdiff_t>(want));
  by.target_free.erase(by.target_free.begin(), by.target_free.begin() + static_cast<ptrdiff_t>(want));
  for (auto b : f.blocks) std::memset(block(by, b).data(), 0xEE, layout_.block_bytes());
  ask.blocks = f.blocks;
  expect(f, twist != nullptr);
  claim(*g, by.number);
  g->shared = g->shared || g->fetched > 0 || twist != nullptr;
  ++g->fetched;
  if (g->held_by == by.number) g->held_by = -1;
  note(cat("node ", by.number, " fetches ", g->request, " as ", f.request, f.must_fail ? ", must fail" : "",
           f.must_succeed ? ", must succeed" : ""));
  by.node->fetch(std::move(ask));
  ++counts.fetches;
  return &by.fetches.emplace(f.request, std::move(f)).first->second;
}

void Sim::cancel(SimFetch& f) {
  note(cat("node ", f.consumer, " cancels ", f.request));
  f.cancelled = true;
  nodes_[static_cast<size_t>(f.consumer)].node->cancel(f.request);
}

void Sim::release(SimGrant& g) {
  auto& n = nodes_[static_cast<size_t>(g.producer)];
  if (!n.node || n.frozen || g.push == SimGrant::Push::kPlanned) return;
  note(cat("node ", g.producer, " releases ", g.request));
  g.released = true;
  n.node->release(g.request);
}

}  // namespace baton::transfer::testing
