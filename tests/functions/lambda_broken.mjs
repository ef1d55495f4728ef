throw new Error('it cannot be imported');
