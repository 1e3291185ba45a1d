// The C++ header: what throws, what is owned, what moves.
#include <sandcell.hpp>
#include <sandcell.hpp> // twice on purpose

#include <cstdio>
#include <cstdlib>
#include <type_traits>

#include <poll.h>
#include <sys/stat.h>

#define CHECK(what) \
    do { \
        if (!(what)) { \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
            std::exit(1); \
        } \
    } while (0)

using namespace std::chrono_literals;

static_assert(!std::is_copy_constructible_v<sandcell::Policy> && std::is_nothrow_move_constructible_v<sandcell::Policy>);
static_assert(!std::is_copy_constructible_v<sandcell::Child> && std::is_nothrow_move_constructible_v<sandcell::Child>);
static_assert(!std::is_copy_constructible_v<sandcell::Cell> && std::is_nothrow_move_constructible_v<sandcell::Cell>);
static_assert(!std::is_copy_constructible_v<sandcell::Result> && std::is_nothrow_move_constructible_v<sandcell::Result>);
static_assert(std::is_nothrow_copy_constructible_v<sandcell::Error>);

template <typename Call>
static int thrown(Call call)
{
    try {
        call();
    } catch (const sandcell::Error &error) {
        CHECK(*error.what() != '\0' && *error.stage() != '\0');
        return error.kind();
    }
    return 0;
}

int main()
{
    CHECK(sandcell::version() == SANDCELL_VERSION);

    sandcell::Policy policy;
    policy.user("1234").env("WHAT", "ever").file("/etc/motd", "be kind\n").timeout(60s).grace(1500us).network("none");
    auto result = policy.run({"/bin/sh", "-c", "id -u; echo $WHAT; cat /etc/motd; printf 'a\\0b'; exit 3"});
    CHECK(result.out() == std::string_view("1234\never\nbe kind\na\0b", 21));
    CHECK(result.exit_code() == 3 && result.outcome() == "exited" && !result.success() && result.uid() == 1234);
    CHECK(result.usage().wall > 0ns && result.usage().output_bytes == 21u && !result.usage().pids_peak);
    CHECK(result.report_json().find("\"code\":3") != std::string_view::npos && result.changes().empty());
#if __cplusplus >= 202002L
    CHECK(result.out_bytes().size() == 21 && result.out_bytes()[19] == std::byte{0});
    const std::byte two[] = {std::byte{'h'}, std::byte{'i'}};
    CHECK(policy.run(sandcell::Command{"/bin/cat"}.input(std::span(two))).out() == "hi");
#endif

    CHECK(thrown([&] { policy.run({"/no/such/program"}); }) == SANDCELL_ERROR_EXEC);
    CHECK(thrown([&] { policy.run({"/bin/true"}); }) == 0);
    try {
        policy.run({"/no/such/program"});
    } catch (const sandcell::Error &error) {
        CHECK(error.code() == std::errc::no_such_file_or_directory);
    }
    sandcell::Policy wrong;
    wrong.network("everything").memory(1);
    CHECK(thrown([&] { wrong.prepare(); }) == SANDCELL_ERROR_CONFIG);
    CHECK(policy.explain_json().front() == '[');
    CHECK(policy.seccomp_bpf().data() != nullptr && policy.seccomp_bpf().size() % 8 == 0);

    CHECK(thrown([] { sandcell::Policy().isolation("elsewhere").prepare(); }) == SANDCELL_ERROR_CONFIG);

    // Trees of leased ids may be the caller's own, too.
    char tree[] = "/tmp/sandcell-tree-XXXXXX";
    CHECK(::mkdtemp(tree) != nullptr);
    const std::string top = tree, copy = top + "/copy";
    CHECK(::mkdir((top + "/d").c_str(), 0700) == 0 && ::symlink("d", (top + "/d/link").c_str()) == 0);
    CHECK(sandcell::owned::copy_out(top + "/d", copy) == 0);
    const auto files = sandcell::owned::list(top);
    CHECK(files.size() == 4 && files[0].path == "copy" && files[1].path == "copy/link" && !files[0].uid);
    CHECK(files[2].kind == sandcell::owned::Entry::Kind::directory && files[2].mode == 0700 && files[2].host_uid == ::getuid());
    CHECK(files[3].kind == sandcell::owned::Entry::Kind::symlink);
    sandcell::owned::reclaim(top);
    sandcell::owned::remove(top);
    CHECK(thrown([&] { sandcell::owned::list(top); }) == SANDCELL_ERROR_IO);

    // A child: pipes, deadlines, signals; destroying it ends it.
    auto child = policy.spawn(sandcell::Command{"/bin/cat"}.in("pipe").out("pipe"));
    CHECK(!child.wait_for(0s) && !child.wait_until(std::chrono::steady_clock::now() + 5ms));
    auto in = child.take_in();
    CHECK(in && !child.take_in() && ::write(in.get(), "x", 1) == 1);
    in.reset();
    const auto echoed = child.wait_output();
    CHECK(echoed.success() && echoed.out() == "x");
    sandcell::Descriptor pidfd;
    {
        auto slow = policy.spawn({"/bin/sleep", "1000"});
        pidfd = slow.pidfd();
        child = std::move(slow);
        child.signal(10);
        CHECK(child.wait().signal() == 10);
        child = policy.spawn({"/bin/sleep", "1000"});
        pidfd = child.pidfd();
    }
    pollfd watched{pidfd.get(), POLLIN, 0};
    CHECK(::poll(&watched, 1, 0) == 0);
    { const sandcell::Child gone = std::move(child); }
    CHECK(::poll(&watched, 1, 0) == 1);

    auto cell = policy.start();
    cell.run({"/bin/sh", "-c", "echo kept >/tmp/file"});
    CHECK(cell.run({"/bin/cat", "/tmp/file"}).out() == "kept\n" && cell.changes().empty());
    CHECK(thrown([&] { cell.freeze(); }) == SANDCELL_ERROR_UNSUPPORTED);
    CHECK(cell.report_json().find("\"host_uid\"") != std::string::npos && !cell.usage().memory_peak_bytes);
    CHECK(cell.home().front() == '/');
    {
        auto entry = cell.entry();
        entry.umask(077).chdir("/tmp").keep_fd(1);
        CHECK(thrown([&] { entry.chdir("tmp"); }) == SANDCELL_ERROR_CONFIG);
    }
    cell.kill();
    CHECK(thrown([&] { cell.run({"/bin/true"}); }) != 0);
    return 0;
}
