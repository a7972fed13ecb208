#include "discovery/access_review.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <atomic>
#include <mutex>
#include <set>

#include "base/json.h"

namespace baton::discovery {
namespace {

// An API server that knows two tokens, one of which may read /metrics.
class Reviewer {
 public:
  Reviewer() : server_({}, [this]() -> net::Handler {
    return [this](net::Request& request, net::ResponseWriter& writer) -> net::Task<> {
      (void)co_await writer.send(answer(request));
    };
  }) {
    EXPECT_TRUE(server_.start());
  }
  KubeAccess access() const {
    KubeAccess out;
    out.tls = false, out.host = "127.0.0.1", out.port = server_.port(), out.token = "ours";
    return out;
  }
  int asked() const { return asked_; }
  std::set<std::string> kinds() {
    std::lock_guard lock(mutex_);
    return kinds_;
  }
  std::string last_subject() {
    std::lock_guard lock(mutex_);
    return subject_;
  }
  std::atomic<bool> denies_us{false};

 private:
  net::Response answer(const net::Request& request) {
    ++asked_;
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.headers.get("authorization").value_or(""), "Bearer ours");
    if (denies_us) return net::Response::json(403, R"({"kind":"Status","message":"tokenreviews is forbidden"})");
    {
      std::lock_guard lock(mutex_);
      kinds_.insert(request.path);
    }
    const auto body = parse_json(request.body);
    const Json* token = body ? body->find_path({"spec", "token"}) : nullptr;
    if (request.path == "/apis/authentication.k8s.io/v1/tokenreviews" && token != nullptr) {
      if (token->text != "reader" && token->text != "stranger") return net::Response::json(201, R"({"status":{"error":"who?"}})");
      return net::Response::json(201, cat(R"({"status":{"authenticated":true,"user":{"username":)", json_string(token->text),
                                          R"(,"uid":"7","groups":["g1","g2"],"extra":{"e/x":["1"]}}}})"));
    }
    EXPECT_EQ(request.path, "/apis/authorization.k8s.io/v1/subjectaccessreviews");
    std::lock_guard lock(mutex_);
    subject_ = request.body;
    const bool allowed = subject_.find(R"("user":"reader")") != std::string::npos;
    return net::Response::json(201, allowed ? R"({"status":{"allowed":true}})" : R"({"status":{"allowed":false}})");
  }
  std::atomic<int> asked_{0};
  std::mutex mutex_;
  std::string subject_;
  std::set<std::string> kinds_;
  net::Server server_;
};

class AccessReviewTest : public testing::Test {
 protected:
  int status(const std::string& authorization, const std::string& path = "/metrics") {
    int out = 0;
    net::run_task([&]() -> net::Task<> {
      net::Request request;
      request.path = path;
      if (!authorization.empty()) request.headers.set("Authorization", authorization);
      const auto guard = (*access_guards(reviewer.access(), clock))();
      const auto first = co_await guard(request);
      const auto again = co_await guard(request);
      out = first ? first->status : 200;
      EXPECT_EQ(again ? again->status : 200, out);
    });
    return out;
  }
  Reviewer reviewer;
  ManualClock clock;
};

TEST_F(AccessReviewTest, TheClusterDecides) {
  EXPECT_EQ(status(""), 401);
  EXPECT_EQ(status("Basic cmVhZGVy"), 401);
  EXPECT_EQ(reviewer.asked(), 0) << "nobody to ask about";
  EXPECT_EQ(status("Bearer unknown"), 401);
  EXPECT_EQ(status("Bearer stranger"), 403);
  EXPECT_EQ(status("bearer reader"), 200);
  EXPECT_EQ(reviewer.asked(), 1 + 2 + 2) << "and the second time nobody was asked";
  EXPECT_EQ(reviewer.last_subject(),
            R"({"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","spec":{"nonResourceAttributes":)"
            R"({"path":"/metrics","verb":"get"},"user":"reader","uid":"7","groups":["g1","g2"],"extra":{"e/x":["1"]}}})");
}

TEST_F(AccessReviewTest, TheDocumentedClusterRoleIsWhatIsAskedFor) {
  EXPECT_EQ(status("Bearer reader"), 200);
  std::set<std::string> allowed;
  for (const YAML::Node& document : YAML::LoadAllFromFile(BATON_SOURCE_DIR "/docs/kubernetes-rbac.yaml")) {
    if (document["kind"].Scalar() != "ClusterRole" || document["metadata"]["name"].Scalar() != "baton-router-auth") continue;
    for (const YAML::Node& rule : document["rules"]) {
      EXPECT_EQ(rule["verbs"].size(), 1u);
      EXPECT_EQ(rule["verbs"][0].Scalar(), "create");
      for (const YAML::Node& resource : rule["resources"])
        allowed.insert(cat("/apis/", rule["apiGroups"][0].Scalar(), "/v1/", resource.Scalar()));
    }
  }
  EXPECT_EQ(allowed, reviewer.kinds());
}

TEST_F(AccessReviewTest, WhatCannotBeAskedIsNotAllowedAndNotKept) {
  reviewer.denies_us = true;
  EXPECT_EQ(status("Bearer reader"), 500);
  EXPECT_EQ(reviewer.asked(), 2);
  reviewer.denies_us = false;
  EXPECT_EQ(status("Bearer reader"), 200);
}

TEST_F(AccessReviewTest, AnswersAge) {
  net::run_task([&]() -> net::Task<> {
    AccessReview review(reviewer.access(), {}, clock);
    EXPECT_TRUE(review.check());
    using Verdict = AccessReview::Verdict;
    EXPECT_EQ((co_await review.may_get("reader", "/metrics")).verdict, Verdict::kAllowed);
    EXPECT_EQ((co_await review.may_get("stranger", "/metrics")).verdict, Verdict::kForbidden);
    EXPECT_EQ(reviewer.asked(), 4);
    clock.advance_ms(15'000);
    EXPECT_EQ((co_await review.may_get("reader", "/metrics")).verdict, Verdict::kAllowed);
    EXPECT_EQ(reviewer.asked(), 4);
    EXPECT_EQ((co_await review.may_get("stranger", "/metrics")).verdict, Verdict::kForbidden);
    EXPECT_EQ(reviewer.asked(), 6);
    EXPECT_EQ((co_await review.may_get("reader", "/debug/plugins/state")).verdict, Verdict::kAllowed);
    EXPECT_EQ(reviewer.asked(), 8) << "another page is another question";
    clock.advance_ms(60'000);
    co_await review.may_get("reader", "/metrics");
    EXPECT_EQ(reviewer.asked(), 10);
  });
}

}  // namespace
}  // namespace baton::discovery
