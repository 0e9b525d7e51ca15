"use strict";

// The numbers move while orders are booked; the table is as it was when the page was loaded.
async function update() {
  try {
    const answer = await fetch(document.body.dataset.numbers);
    const numbers = await answer.json();
    for (const name of ["booked", "unbooked"]) {
      document.getElementById(name).textContent = numbers[name].toLocaleString("en");
    }
  } finally {
    setTimeout(update, 500);
  }
}

update();
