// One sandbox, many programs: the cell is started once, its programs run at the same time and share its files.
//
//     c++ -std=c++17 cell.cpp -o cell $(pkg-config --cflags --libs sandcell) -pthread && ./cell
#include <sandcell.hpp>

#include <future>
#include <iostream>

int main()
{
    try {
        sandcell::Policy policy;
        policy.timeout(std::chrono::seconds(10)).network("none");
        const sandcell::Cell cell = policy.start();

        cell.run({"/bin/sh", "-c", "for i in 1 2 3 4; do echo $((i * i)) >/tmp/$i; done"});
        std::vector<std::future<std::string>> squares;
        for (int i = 1; i <= 4; i++) {
            squares.push_back(std::async(std::launch::async, [&cell, i] {
                return std::string(cell.run({"/bin/cat", "/tmp/" + std::to_string(i)}).out());
            }));
        }
        for (auto &square : squares)
            std::cout << square.get();

        // A program that takes too long is given up.
        sandcell::Child slow = cell.spawn({"/bin/sleep", "1000"});
        if (!slow.wait_for(std::chrono::milliseconds(50)))
            slow.kill();
        std::cout << slow.wait().outcome() << '\n';
        return 0;
    } catch (const sandcell::Error &error) {
        std::cerr << error.what() << "\nhint: " << error.hint() << '\n';
        return 125;
    }
}
