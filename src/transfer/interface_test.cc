#include "transfer/interface.h"

#include <gtest/gtest.h>

namespace baton::transfer {
namespace {

TEST(Interface, HostThenInterfaceThenUcxDevicesThenLoopback) {
  AddressOf address_of = [](std::string_view name) { return name == "eth0" ? "10.0.0.7" : name == "eth1" ? "10.1.0.7" : ""; };
  struct {
    const char *host, *name, *devices, *want_host, *want_interface;
  } cases[] = {{"", "", "", "127.0.0.1", ""},
               {"0.0.0.0", "", "eth1", "0.0.0.0", ""},
               {"", "eth1", "", "10.1.0.7", "eth1"},
               {"10.9.9.9", "eth1", "", "10.9.9.9", "eth1"},
               {"", "", "mlx5_0:1,eth1", "10.1.0.7", ""},
               {"", "", "eth0,eth1", "10.0.0.7", ""},
               {"", "eth0", "eth1", "10.0.0.7", "eth0"},
               {"", "", "mlx5_0:1", "127.0.0.1", ""},
               {"", "", ",,", "127.0.0.1", ""}};
  for (const auto& c : cases) {
    auto got = choose_interface(c.host, c.name, c.devices, address_of);
    ASSERT_TRUE(got) << c.name;
    EXPECT_EQ(got->host, c.want_host) << c.host << "|" << c.name << "|" << c.devices;
    EXPECT_EQ(got->interface, c.want_interface);
  }
  EXPECT_FALSE(choose_interface("", "eth7", "", address_of));
  EXPECT_FALSE(choose_interface("10.0.0.1", "eth7", "", address_of)) << "a wrong name is told of, wherever it is";
}

TEST(Interface, ThisHostHasLoopback) {
  auto lo = choose_interface("", "lo");
  ASSERT_TRUE(lo) << lo.error().message;
  EXPECT_EQ(lo->host, "127.0.0.1");
  EXPECT_FALSE(choose_interface("", "no-such-interface"));
}

}  // namespace
}  // namespace baton::transfer
