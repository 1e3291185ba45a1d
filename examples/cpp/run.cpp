// Runs a program in a sandbox and says how it ended.
//
//     c++ -std=c++17 run.cpp -o run $(pkg-config --cflags --libs sandcell) && ./run /bin/sh -c 'id; echo hello'
#include <sandcell.hpp>

#include <iostream>

int main(int argc, char **argv)
{
    if (argc < 2) {
        std::cerr << "usage: " << argv[0] << " PROGRAM [ARGUMENT...]\n";
        return 2;
    }
    try {
        sandcell::Policy policy;
        policy.timeout(std::chrono::seconds(10)).user("1234").env("GREETING", "hello");

        const auto result = policy.run(sandcell::Command(std::vector<std::string>(argv + 1, argv + argc)));
        std::cout << result.out();
        std::cerr << result.err() << result.outcome() << ", status " << result.exit_code() << '\n';
        return result.exit_code();
    } catch (const sandcell::Error &error) {
        std::cerr << error.what() << "\nhint: " << error.hint() << '\n';
        return 125;
    }
}
