// Plays tests/cases/sidecar/*.case (README there says how they are written).
#include <filesystem>
#include <fstream>

#include "sidecar/fake_worker.h"
#include "sidecar/sidecar.h"

namespace baton::sidecar {
namespace {

struct Section {
  std::string name;
  std::vector<std::string> lines;
};

std::vector<Section> read_case(const std::filesystem::path& path) {
  std::vector<Section> sections;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("--- ")) {
      sections.push_back({line.substr(4), {}});
    } else if (!sections.empty()) {
      sections.back().lines.push_back(line);
    } else {
      BATON_CHECK(line.starts_with('#'));
    }
  }
  return sections;
}

using Names = std::vector<std::pair<std::string, std::string>>;

// Longer words first: PREFILL is the beginning of PREFILL2 and PREFILL_PORT.
std::string named(std::string text, const Names& names) {
  for (const auto& [word, stands_for] : names) {
    for (size_t at = 0; (at = text.find(word, at)) != std::string::npos; at += stands_for.size()) {
      text.replace(at, word.size(), stands_for);
    }
  }
  return text;
}

Message read_message(const Section& section, const Names& names) {
  Message message;
  size_t i = 0;
  if (i < section.lines.size()) message.first_line = section.lines[i++];
  for (; i < section.lines.size() && !section.lines[i].empty(); ++i) {
    const std::string& line = section.lines[i];
    size_t colon = line.find(':');
    BATON_CHECK(colon != std::string::npos);
    message.headers.emplace_back(line.substr(0, colon), named(line.substr(std::min(line.size(), colon + 2)), names));
  }
  bool events = message.says("events");
  for (++i; i < section.lines.size(); ++i) {
    message.body += named(section.lines[i], names) + (events ? "\n\n" : "\n");
  }
  if (!events && !message.body.empty()) message.body.pop_back();
  return message;
}

int closed_port() {
  FakeWorker worker("closed");
  return worker.port();
}

class Cases : public testing::TestWithParam<std::filesystem::path> {
 protected:
  static constexpr const char* kWorkers[] = {"prefill2", "prefill", "decode", "encoder2", "encoder", "bootstrap"};

  Cases() {
    for (const char* name : kWorkers) workers_.emplace(name, std::make_unique<FakeWorker>(name));
    for (auto& [name, worker] : workers_) worker->meet(*workers_.at(name == "prefill" ? "decode" : "prefill"), unknowns_);
    for (const char* suffix : {"_PORT", ""}) {
      for (const char* name : kWorkers) {
        std::string word = name;
        for (char& c : word) c = static_cast<char>(std::toupper(c));
        int port = workers_.at(name)->port();
        names_.emplace_back(word + suffix, *suffix ? std::to_string(port) : cat("127.0.0.1:", port));
      }
    }
    names_.emplace_back("DOWN", cat("127.0.0.1:", closed_port()));
    config_.port = 0, config_.host = "127.0.0.1", config_.model_server_port = workers_.at("decode")->port();
    config_.secure_proxy = false;
  }

  void read() {
    FakeWorker::Turn turn;
    for (const Section& section : read_case(GetParam())) {
      if (section.name == "flags") {
        std::vector<std::string> args;
        for (const std::string& line : section.lines) args.push_back(named(line, names_));
        auto parsed = sidecar_options(config_).parse(args);
        ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
        continue;
      }
      Message message = read_message(section, names_);
      if (section.name == "client sends") exchanges_.emplace_back(message, Message());
      if (section.name == "client gets") exchanges_.back().second = message;
      if (section.name.ends_with(" expects")) turn.expects = message;
      if (section.name.ends_with(" answers")) {
        turn.answers = message;
        workers_.at(section.name.substr(0, section.name.find(' ')))->expect(turn);
      }
    }
  }

  Unknowns unknowns_;
  std::map<std::string, std::unique_ptr<FakeWorker>> workers_;
  Names names_;
  SidecarConfig config_;
  std::vector<std::pair<Message, Message>> exchanges_;  // what the client sends and gets
};

TEST_P(Cases, Holds) {
  read();
  Sidecar sidecar(config_);
  auto started = sidecar.start();
  ASSERT_TRUE(started.has_value()) << started.error().message;
  for (const auto& [sends, gets] : exchanges_) {
    Result<net::Response> response = fail(Code::kUnknown, "not run");
    net::run_task([&]() -> net::Task<> {
      net::Client client;
      net::Call call;
      call.host = "127.0.0.1", call.port = sidecar.port();
      size_t space = sends.first_line.find(' ');
      call.method = sends.first_line.substr(0, space), call.target = sends.first_line.substr(space + 1);
      for (const auto& [name, value] : sends.headers) call.headers.add(name, value);
      call.body = sends.body;
      response = co_await client.fetch(call);
    });
    ASSERT_TRUE(response.has_value()) << response.error().message;
    EXPECT_EQ(response->status, gets.status()) << response->body;
    EXPECT_EQ(header_complaints(response->headers, gets), "");
    if (!gets.body.empty()) EXPECT_EQ(response->body, gets.body);
  }
  sidecar.stop();
  for (auto& [name, worker] : workers_) EXPECT_EQ(worker->complaints(), "");
}

std::vector<std::filesystem::path> all_cases() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(BATON_SOURCE_DIR "/tests/cases/sidecar")) {
    if (entry.path().extension() == ".case") paths.push_back(entry.path());
  }
  std::ranges::sort(paths);
  return paths;
}

INSTANTIATE_TEST_SUITE_P(Sidecar, Cases, testing::ValuesIn(all_cases()),
                         [](const auto& info) { return info.param.stem().string(); });

}  // namespace
}  // namespace baton::sidecar
